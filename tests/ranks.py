"""Two processes that meet over gloo."""

from pathlib import Path

from faults.fork_server import shared

ONE_THREAD = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
_MEETING = """
import sys
import torch
import torch.distributed as dist

torch.set_num_threads(1)
rank, folder = int(sys.argv[0]), sys.argv[1]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
"""


def run_two_ranks(script: str, folder: Path) -> None:
    """Run a script, which knows `rank` and `folder` and has torch and dist, on two ranks. Both must succeed."""
    whole = f"{_MEETING}\n{script}\ndist.barrier()\ndist.destroy_process_group()\n"
    log = folder / "ranks.log"
    assert shared().script(whole, [str(folder)], log, processes=2, **ONE_THREAD) == [0, 0], log.read_text()
