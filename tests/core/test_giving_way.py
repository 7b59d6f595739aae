"""What is done ahead of time gives way to a training that runs."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import wait_until

from accel_trainer.core import giving_way as module
from accel_trainer.core.giving_way import EVERY_S, GIVE_WAY, LOW_PRIORITY, RESTS, giving_way, lower_priority


class Machine:
    """Each module takes 50 ms to compute, and others have had the core for a part of that time."""

    def __init__(self, waited: float, file: Path, wanted_after: int | None = None) -> None:
        self.now = self.computed = self.waited = self.rested = 0.0
        self._waited, self._file, self._wanted_after, self.count = waited, file, wanted_after, 0

    def imports(self, number: int) -> None:
        for _ in range(number):
            self.count += 1
            if self.count == self._wanted_after:
                self._file.touch()
            with pytest.raises(ImportError):
                __import__(f"none_{uuid.uuid4().hex}")
            self.computed += 0.05
            self.waited += 0.05 * self._waited
            self.now += 0.05

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.rested += seconds


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Machine]:
    def make(**given: object) -> Machine:
        machine = Machine(file=tmp_path / "arguments", **given)
        monkeypatch.setattr(module, "_computed", lambda: machine.computed)
        monkeypatch.setattr(module, "_times", lambda: (machine.computed, machine.waited))
        monkeypatch.setattr(module.time, "monotonic", lambda: machine.now)
        monkeypatch.setattr(module.time, "sleep", machine.sleep)
        return machine

    return make


@pytest.mark.parametrize(
    ("waited", "told", "wanted_after", "rests"),
    [
        (1.0, True, None, 100),
        (0.2, True, None, 100),
        (0.0, True, None, 0),
        (0.01, True, None, 0),
        (1.0, False, None, 0),
        (1.0, True, 51, 50),
        (1.0, True, 1, 0),
    ],
)
def test_imports_rest_while_others_want_the_cores_and_no_job_is_there(
    on: Callable[..., Machine], tmp_path: Path, waited: float, told: bool, wanted_after: int | None, rests: int
) -> None:
    machine, before = on(waited=waited, wanted_after=wanted_after), list(sys.meta_path)
    with giving_way(["--stand-by", str(tmp_path / "arguments"), *[GIVE_WAY] * told]):
        machine.imports(101)
    assert machine.rested == pytest.approx(rests * RESTS * 0.05, rel=0.25, abs=EVERY_S)
    assert sys.meta_path == before


def test_what_the_kernel_counts_is_read() -> None:
    before = module._times()
    if before is None:
        pytest.skip("this kernel does not say how long a thread has waited")
    began = module._computed()
    while module._computed() - began < 0.05:
        pass
    after = module._times()
    assert after is not None
    assert after[0] - before[0] == pytest.approx(module._computed() - began, abs=0.03)
    assert after[1] >= before[1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows the environment of processes")
def test_a_process_that_never_trains_yields_with_all_that_it_starts() -> None:
    code = """
import os, subprocess, sys
sys.stdin.readline()
subprocess.run([sys.executable, "-c", "import os; print(os.nice(0))"])
"""
    name = f"ACCEL_TRAIN_TEST_{uuid.uuid4().hex}"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, name: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    own = os.nice(0)
    lower_priority(name, "1")
    wait_until(lambda: os.getpriority(os.PRIO_PROCESS, process.pid) == LOW_PRIORITY, timeout_s=10)
    assert process.communicate("\n")[0].strip() == str(LOW_PRIORITY)
    assert os.nice(0) == own
