"""Two processes that meet over gloo."""

import os
import subprocess
import sys
from pathlib import Path

_MEETING = """
import sys
import torch
import torch.distributed as dist

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
"""


def run_two_ranks(script: str, folder: Path) -> None:
    """Run a script, which knows `rank` and `folder` and has torch and dist, on two ranks. Both must succeed."""
    whole = f"{_MEETING}\n{script}\ndist.barrier()\ndist.destroy_process_group()\n"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", whole, str(rank), str(folder)], stderr=subprocess.PIPE, env=environment, text=True
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(said)
