"""What a process computes with."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from accel_trainer.training.runtime import accelerator
from accel_trainer.training.runtime.accelerator import assembly


def test_the_c_library_keeps_memory_on_a_cpu(make_job, run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    told: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *what: told.append(what))
    monkeypatch.setattr(accelerator.ctypes, "CDLL", lambda name: library)
    with assembly(make_job(), run):
        assert told == [(-3, 2**25), (-1, 2**30)]


# 16 tensors of 8 MB at the same time, over and over, as in a step; how many pages the system gave for them.
PAGES = """
import resource, torch
from accel_trainer.training.runtime.accelerator import keep_freed_memory
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


def pages(**environment: str) -> int:
    command = [sys.executable, "-c", PAGES]
    ran = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True, text=True)
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_was_freed_is_not_asked_of_the_system_again():
    assert pages() < 1000
    assert pages(MALLOC_TRIM_THRESHOLD_="100000") > 10_000, "what is set by hand stays"
