import os
import subprocess
import sys

import torch

from accel_trainer.data.shared_work import on_one_core, single_core_threads


def test_pool_threads_use_one_core_and_their_caller_keeps_its_own() -> None:
    """In a process of its own: a thread is given its number when it first needs one."""
    script = """
import os

# All cores, also where the tests have a share of them.
os.sched_setaffinity(0, range(os.cpu_count()))

import torch
from accel_trainer.data.shared_work import single_core_threads

with single_core_threads(2, "test") as pool:
    assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
assert torch.get_num_threads() == 2, torch.get_num_threads()
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_call_on_one_core_gives_the_cores_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert on_one_core(torch.get_num_threads) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with single_core_threads(1, "test") as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
