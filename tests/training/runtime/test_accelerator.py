"""What a process computes with."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from faults.fork_server import ForkServer

from accel_trainer.training.runtime import accelerator
from accel_trainer.training.runtime.accelerator import assembly


def test_the_c_library_keeps_memory_on_a_cpu(make_job, run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    told: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *what: told.append(what))
    monkeypatch.setattr(accelerator.ctypes, "CDLL", lambda name: library)
    with assembly(make_job(), run):
        assert told == [(-3, 2**25), (-1, 2**30)]


# 16 tensors of 8 MB at the same time, over and over, as in a step; how many pages the system gave for them. First the C
# library is told what it begins with in a process of its own.
PAGES = """
import ctypes, os, resource, torch
from accel_trainer.training.runtime.accelerator import keep_freed_memory
for what in (-3, -1):
    ctypes.CDLL(None).mallopt(what, 2**17)
keep_freed_memory()
def once():
    return [torch.ones(2**21) for _ in range(16)]
for _ in range(3):
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(server: ForkServer, log: Path, **environment: str) -> int:
    """Of a process in which nothing was computed before."""
    assert server.script(PAGES, [], log, processes=1, **environment) == [0], log.read_text()
    return int(log.read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_was_freed_is_not_asked_of_the_system_again(server: ForkServer, tmp_path: Path):
    assert pages(server, tmp_path / "kept") < 1000
    assert pages(server, tmp_path / "asked", MALLOC_TRIM_THRESHOLD_="131072") > 10_000, "what is set by hand stays"
