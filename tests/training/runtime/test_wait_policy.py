"""How OpenMP's threads wait for work. What is counted is processor time: it does not depend on the machine's load."""

import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from faults.fork_server import ForkServer

from accel_trainer.training.runtime import wait_policy

# Seconds of processor time that 30 waits of the other thread take, awake or asleep, each of 10 ms.
SPUN = """
import time, torch
from accel_trainer.training.runtime import wait_policy
torch.set_num_threads(2)
ones = torch.ones(2**16)
def spun():
    before = time.process_time()
    for _ in range(30):
        ones.add_(1)
        time.sleep(0.01)
    return time.process_time() - before
"""
libgomp_only = pytest.mark.skipif(sys.platform != "linux" or not wait_policy._libgomp(), reason="torch has no libgomp")


def run(code: str, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name not in wait_policy.WAIT_VARIABLES}
    command = [sys.executable, "-c", SPUN + code]
    ran = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, check=True)
    return ran.stdout.split()


@libgomp_only
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core libgomp's threads never spin")
def test_waiting_threads_sleep_while_there_are_sleepers_and_no_other_thread_computes():
    awake, asleep, again, threads = map(
        float,
        run(
            "print(spun()); sleepers = wait_policy.Sleepers(); print(spun()); sleepers.end(); print(spun(), "
            "torch.get_num_threads())"
        ),
    )
    assert asleep < awake / 3
    assert asleep < again / 3
    assert threads == 2


@libgomp_only
def test_a_run_waits_by_load_unless_the_user_has_said_how(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code = """
import threading, torch
from accel_trainer.training.runtime import wait_policy
torch.set_num_threads(2)
with wait_policy.waiting_by_load():
    print(wait_policy.wait_policy(), sum(thread.name == "wait policy" for thread in threading.enumerate()), sep=":")
print(threading.active_count())
"""
    for name in wait_policy.WAIT_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def said(**variables: str) -> list[str]:
        log = tmp_path / " ".join(variables)
        assert server.script(code, [], log, processes=1, **variables) == [0], log.read_text()
        return log.read_text().split()

    assert said(NOTHING="") == ["by", "load:1", "1"]
    assert said(KMP_BLOCKTIME="1") == ["by", "load:1", "1"], "a launch sets it for every training"
    for name, value in (("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")):
        assert said(**{name: value}) == [f"{name}={value}:0", "1"]


@libgomp_only
def test_where_too_many_threads_would_have_to_sleep_or_too_few_are_allowed_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
):
    """libgomp ends a process that may not have one more."""
    for name in wait_policy.WAIT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert wait_policy.wait_policy() == "by load"
    with monkeypatch.context() as patch:
        patch.setattr(wait_policy.os, "sched_getaffinity", lambda pid: set(range(192)))
        assert wait_policy.wait_policy() == "of the library"
    with monkeypatch.context() as patch:
        patch.setattr(wait_policy.resource, "getrlimit", lambda which: (100, 100))
        assert wait_policy.wait_policy() == "of the library"
    monkeypatch.setattr(wait_policy, "tasks_left", lambda: 50)
    assert wait_policy.wait_policy() == "of the library"


class Looks:
    """In place of an event: ends after so many looks."""

    def __init__(self, number: int) -> None:
        self.left = number

    def wait(self, seconds: float) -> bool:
        self.left -= 1
        return self.left < 0


def watched(monkeypatch: pytest.MonkeyPatch, shares: list[float]) -> str:
    """What becomes of the threads, for the shares of each look: s where they begin to sleep, w where they wake."""
    said: list[str] = []

    class Noted:
        have_ended = False

        def __init__(self) -> None:
            said.append("s")

        def end(self) -> None:
            if not self.have_ended:
                said.append("w")
            self.have_ended = True

    times, waited = count(0.0, 0.5), 0

    class At(wait_policy._Moment):
        def __init__(self) -> None:
            number = int(2 * (now := next(times)))
            nonlocal waited
            waited += 0 if number == 0 else int(shares[number - 1] * 0.5e9)
            self.time, self._waited_ns = now, {"1": waited}

    monkeypatch.setattr(wait_policy, "Sleepers", Noted)
    monkeypatch.setattr(wait_policy, "_Moment", At)
    wait_policy._watch(Looks(len(shares)))  # type: ignore[arg-type]
    return "".join(said)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.0] * 3, "sw"),  # the run has ended
        ([0.0] * 9, "sw"),
        ([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], "sw"),
        ([0.1] * 4 + [1.0], "swsw"),
        ([0.0] * 4 + [1.0] * 3 + [0.0] * 4 + [0.0], "swsw"),
        ([0.0] * 4 + [1.0] + [0.0] * 4 + [2.0], "swswsw"),
    ],
)
def test_threads_sleep_at_once_on_a_busy_machine_and_wake_when_it_has_long_been_quiet(
    monkeypatch: pytest.MonkeyPatch, shares: list[float], expected: str
):
    assert watched(monkeypatch, shares) == expected


def test_where_the_kernel_does_not_say_who_waits_the_machine_counts_as_busy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wait_policy, "waited_ns", dict)
    before = wait_policy._Moment()
    assert wait_policy._Moment().waited_share(before) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own count")
def test_who_waits_for_a_core_is_counted(server: ForkServer, tmp_path: Path):
    """Of two that compute on one core, each waits for half of the time."""
    code = """
import os, subprocess, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from accel_trainer.training.runtime.wait_policy import _Moment
other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
before, end = _Moment(), time.monotonic() + 0.7
while time.monotonic() < end: pass
print(_Moment().waited_share(before))
other.kill()
"""
    assert server.script(code, [], tmp_path / "share", processes=1) == [0]
    assert wait_policy.BUSY_SHARE < float((tmp_path / "share").read_text()) < 1.5
