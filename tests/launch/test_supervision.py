"""A trainer that has had its time, or does nothing any more, is ended."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest
from helpers import wait_until

from accel_trainer.config import Job
from accel_trainer.core import processes
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch import supervision
from accel_trainer.launch.attempt_events import AttemptEvent, AttemptStopping, AttemptTerminating
from accel_trainer.launch.command import Launch
from accel_trainer.launch.process_group import ProcessGroup
from accel_trainer.launch.supervision import Supervision, supervise
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState


class Launched(Launch):
    """A 'launcher' that runs a few lines of Python in a child, as a trainer."""

    @property
    def argv(self) -> list[str]:
        child = f"[sys.executable, '-c', {self.worker_args[0]!r}, {str(self.worker)!r}]"
        return [sys.executable, "-c", f"import subprocess, sys; sys.exit(subprocess.call({child}))"]


class Recorder:
    """Keeps why trainers were asked to stop."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, event: AttemptEvent) -> None:
        match event:
            case AttemptStopping():
                self.told.append("stopping")
            case AttemptTerminating(reason=reason):
                self.told.append(reason)


def test_a_launcher_is_killed_even_while_its_environment_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel shows none of a process whose program is just being put into place."""
    trainer = ProcessGroup(Launched((), {}, 1, ("import time; time.sleep(60)",)), Owner.new().token, tmp_path / "log")
    with monkeypatch.context() as moment:
        moment.setattr(processes, "pids_with_env", lambda name, value: [])
        began = time.monotonic()
        trainer.kill()
    assert time.monotonic() - began < 30
    asyncio.run(trainer.stop())
    assert not processes.pids_with_env(TOKEN_VARIABLE, trainer.token)


BEGIN = """
import faulthandler, signal, sys, time
faulthandler.register(signal.SIGUSR1, all_threads=True)
"""
HANGS = (
    BEGIN
    + """
def waits_for_ever():
    print("here", flush=True)
    time.sleep(60)
waits_for_ever()
"""
)
SAVES = (
    BEGIN
    + """
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
time.sleep(60)
"""
)
WORKS = (
    BEGIN
    + """
from pathlib import Path
for _ in range(8):
    Path({status!r}).write_text("{{}}")
    time.sleep(0.2)
"""
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.create()
    return run


@pytest.fixture(autouse=True)
def in_short(monkeypatch) -> None:
    monkeypatch.setattr(supervision, "STATUS_EVERY_S", 0.05)
    monkeypatch.setattr("accel_trainer.launch.process_group.DUMP_S", 0.5)


def supervised(code: str, run: RunFolder, stop: StopRequest | None = None, **limits: float):
    """(why the trainer was cut, what was told, what is in its log)"""
    log, recorder = run.path / "log", Recorder()
    trainer = ProcessGroup(Launched((), {}, 1, (code,)), Owner.new().token, log)
    try:
        wait_until(log.exists)
        job = Job(architecture="resnet18", **limits)
        supervised_by = Supervision(StopRequest() if stop is None else stop, recorder)
        cut = asyncio.run(supervise(trainer, job, supervision.StatusMonitor(run, "token"), None, supervised_by))
    finally:
        trainer.kill()
        asyncio.run(trainer.stop())
    return cut, recorder.told, log.read_text()


def test_a_stalled_trainer_is_ended_with_its_stacks_in_the_log(run):
    cut, told, log = supervised(HANGS, run, stall_timeout=1 / 60)
    assert cut.state is RunState.STALLED
    assert cut.reason.startswith("stalled: no step for 1s (stall_timeout)")
    assert told == [cut.reason]
    assert "stacks of rank 0 (process " in log
    assert "in waits_for_ever" in log


def test_a_trainer_that_reports_now_and_then_is_left_alone(run):
    cut, told, _ = supervised(WORKS.format(status=str(run.status_file)), run, stall_timeout=1 / 60)
    assert cut is None
    assert told == []


def test_after_its_time_a_trainer_may_save(run):
    cut, told, log = supervised(SAVES, run, time_limit=0.7 / 60)
    assert cut.state is RunState.PREEMPTED
    assert cut.reason.startswith("time_limit: 1s are over")
    assert told == [cut.reason]
    assert "saved" in log


def test_who_asks_for_a_stop_is_obeyed_before_any_limit(run):
    stop = StopRequest()
    stop.note(15)
    cut, told, _ = supervised(SAVES, run, stop, time_limit=1e-9, stall_timeout=1e-9)
    assert cut is None
    assert told == ["stopping"]


def test_a_heartbeat_is_heard_by_our_own_clock(run, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(supervision.time, "monotonic", lambda: now[0])
    run.status_file.write_text("{}")
    heartbeat = supervision.StatusMonitor(run, "token")
    now[0] += 50
    assert heartbeat.silence_s() == 50
    os.utime(run.status_file, (1, 1))  # whatever the clock of the file's server
    now[0] += 10
    assert heartbeat.silence_s() == 0
