"""Processes that meet over gloo."""

from pathlib import Path

from faults.fork_server import shared

ONE_THREAD = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
_MEETING = """
import sys
import torch
import torch.distributed as dist

torch.set_num_threads(1)
rank, folder, world_size = int(sys.argv[0]), sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
"""


def run_ranks(script: str, folder: Path, processes: int) -> None:
    """Run a script, which knows `rank`, `folder` and `world_size` and has torch and dist, on so many ranks. All must
    succeed."""
    whole = f"{_MEETING}\n{script}\ndist.barrier()\ndist.destroy_process_group()\n"
    log = folder / "ranks.log"
    codes = shared().script(whole, [str(folder), str(processes)], log, processes=processes, **ONE_THREAD)
    assert codes == [0] * processes, log.read_text()


def run_two_ranks(script: str, folder: Path) -> None:
    """`run_ranks` with two."""
    run_ranks(script, folder, 2)


def launched(script: str) -> str:
    """A script for `run_ranks`, run as of a launcher on CPUs: Accelerate joins the ranks."""
    tests = str(Path(__file__).parent)
    return f"""
import os
sys.path.insert(0, {tests!r})
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_WORLD_SIZE=str(world_size))
os.environ["ACCELERATE_USE_CPU"] = "true"
{script}"""
