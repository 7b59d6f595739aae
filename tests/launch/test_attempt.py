"""How an attempt is judged, and that nothing of it stays."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from faults.away import disk_of
from helpers import REPOSITORY, dead_token, wait_until

from accel_trainer.config import Job
from accel_trainer.core import processes
from accel_trainer.core.disk_calls import retrying
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch import attempt as attempt_module
from accel_trainer.launch.attempt import Attempt, run_attempt
from accel_trainer.launch.command import Launch, LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.process_group import ProcessGroup
from accel_trainer.launch.supervision import Supervision
from accel_trainer.run import lock
from accel_trainer.run.lock import acquire


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text("some words\nCUDA exploded\n\n=====\n")
    return path


class Sleeper(Launch):
    """A 'launcher' whose child is in another session, as torchrun's ranks are, and outlives it."""

    @property
    def argv(self) -> list[str]:
        child = "import time; time.sleep(60)"
        code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
        return [sys.executable, "-c", code + self.worker_args[0]]


def left(token: str) -> list[int]:
    return processes.pids_with_env("ACCEL_TRAIN_TOKEN", token)


def test_killing_a_trainer_leaves_nothing_of_it(tmp_path):
    trainer = ProcessGroup(Sleeper((), {}, 1, (".wait()",)), "token-1", tmp_path / "log")
    wait_until(lambda: len(left("token-1")) == 2)
    trainer.kill()
    assert trainer.exit_code == -signal.SIGKILL
    wait_until(lambda: not left("token-1"), timeout_s=5)
    asyncio.run(trainer.stop())


def test_what_outlives_its_launcher_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("accel_trainer.launch.process_group.REST_S", 0.2)
    trainer = ProcessGroup(Sleeper((), {}, 1, ("",)), "token-2", tmp_path / "log")
    wait_until(lambda: trainer.exit_code is not None)
    assert len(left("token-2")) == 1
    asyncio.run(trainer.stop())
    assert not left("token-2")


def test_a_launcher_dies_with_its_runner(tmp_path):
    code = (
        "from pathlib import Path; import sys, time; sys.path.insert(0, sys.argv[2]);"
        "from test_attempt import Sleeper; from accel_trainer.launch.process_group import ProcessGroup;"
        "ProcessGroup(Sleeper((), {}, 1, ('; import time; time.sleep(60)',)), 'token-3', Path(sys.argv[1]));"
        "print('started', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "log"), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests")))}
    runner = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert runner.stdout.readline() == "started\n"
        wait_until(lambda: len(left("token-3")) == 2)
    finally:
        runner.kill()
        runner.communicate()
    # The child of the 'launcher' has no such wish; the launcher itself has died.
    wait_until(lambda: len(left("token-3")) == 1, timeout_s=10)
    processes.send_signal(left("token-3"), signal.SIGKILL)


# -- whose error counts, whose folder it is ---------------------------------------------------------------------


@pytest.fixture
def attempt(tmp_path: Path, log: Path) -> Attempt:
    job = Job(architecture="resnet18", model_dir=str(tmp_path / "run"))
    attempt = Attempt(job, tmp_path / "job.json", "mine", log)
    attempt.run.create()
    return attempt


def run_it(attempt: Attempt) -> Outcome:
    supervision = Supervision(StopRequest(), lambda event: None)
    return asyncio.run(run_attempt(attempt, LaunchOptions(), Machine((), False, 1), supervision))


@pytest.fixture
def launched(monkeypatch) -> list[list[int]]:
    """In place of a trainer, a command that ends at once; the numbers of the run folder's locks meanwhile."""
    seen = []

    def plan(job, *_):
        code = f"import os; print([n for n in os.listdir({job.model_dir!r}) if n.startswith('.owner')])"
        return Command((), {}, 1, (code,))

    def started(trainer, launch, token, log):
        seen.append(True)
        start(trainer, launch, token, log)

    start = ProcessGroup.__init__
    monkeypatch.setattr(attempt_module, "plan_launch", plan)
    monkeypatch.setattr(ProcessGroup, "__init__", started)
    return seen


class Command(Launch):
    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-c", *self.worker_args]


def own_attempt(attempt: Attempt) -> Attempt:
    return replace(attempt, token=Owner.new().token)


def test_a_run_folder_is_the_attempt_s_own_while_it_lasts(attempt, launched):
    ending = run_it(own_attempt(attempt))
    assert ending.reason == "the trainer was ended before it said anything: ['.owner-1']"
    assert attempt.run.locks() == []


def test_a_run_folder_in_which_another_process_trains_is_refused(attempt, launched):
    taken = acquire(attempt.run, Owner.new(), end_leftovers=print, say=print)
    attempt.run.config.write_text("theirs")
    before = {path: path.stat().st_mtime_ns for path in attempt.run.path.rglob("*")}
    ending = run_it(own_attempt(attempt))
    assert (ending.kind, ending.is_users_mistake) == (OutcomeKind.FOLDER_IN_USE, True)
    assert ending.wait_s == 60.0, "of this machine's processes it can be seen when they end"
    assert ending.reason.startswith(
        f"model_dir: another process is training in {attempt.run.path}: process {os.getpid()}"
    )
    assert "\n" not in ending.reason
    assert not launched
    assert before == {path: path.stat().st_mtime_ns for path in attempt.run.path.rglob("*")}
    taken.release()
    run_it(own_attempt(attempt))
    assert launched


def test_what_a_dead_process_left_in_a_run_folder_is_ended_first(attempt, launched, tmp_path, monkeypatch):
    monkeypatch.setattr("accel_trainer.launch.process_group.REST_S", 0.2)
    dead = Owner(this_host(), dead_token())
    acquire(attempt.run, dead, end_leftovers=print, say=print)
    group = ProcessGroup(Sleeper((), {}, 1, ("",)), dead.token, tmp_path / "log")
    wait_until(lambda: len(left(dead.token)) == 1)
    wait_until(lambda: group.exit_code is not None)
    run_it(own_attempt(attempt))
    assert not left(dead.token)
    assert len(launched) == 2
    assert attempt.run.locks() == []


def test_a_folder_taken_over_from_another_machine_is_logged(attempt, launched):
    acquire(attempt.run, Owner("another-host", "boot-1-2-x"), end_leftovers=print, say=print)
    os.utime(attempt.run.lock(1), (0, 0))
    run_it(own_attempt(attempt))
    first, _ = attempt.log.read_text().split("=====\n")[1].splitlines()
    assert "was taken over: nothing was heard of the process that trained in it, on another-host, for" in first


def test_a_trainer_whose_folder_was_taken_over_is_ended_at_once(attempt, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.0)
    code = f"import os, time; os.remove({str(attempt.run.lock(1))!r}); time.sleep(60)"
    monkeypatch.setattr(attempt_module, "plan_launch", lambda *_: Command((), {}, 1, (code,)))
    ours = own_attempt(attempt)
    ending = run_it(ours)
    assert ending.kind is OutcomeKind.SUPERSEDED
    assert ending.reason == f"model_dir: another process has taken {attempt.run.path} over: its lock is gone"
    assert not left(ours.token)


def test_the_lock_is_that_of_the_main_machine(attempt, monkeypatch):
    taken = acquire(attempt.run, Owner.new(), end_leftovers=print, say=print)
    monkeypatch.setattr(attempt_module, "plan_launch", lambda *_: Command((), {}, 1, ("",), machine_rank=1))
    assert run_it(own_attempt(attempt)).kind is OutcomeKind.DONE
    assert attempt.run.locks() == [1]
    taken.release()


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ENOTCONN], ids=errno.errorcode.get)
def test_a_trainer_whose_log_cannot_be_opened_for_a_moment_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    log = tmp_path / "logs" / "job.1.log"
    log.parent.mkdir()
    with disk_of(log.parent, monkeypatch) as disk, retrying(10.0):
        disk.goes_away(error, 1, 0.2)
        trainer = ProcessGroup(Sleeper((), {}, 1, ("",)), Owner.new().token, log)
        disk.error = 0
        asyncio.run(trainer.stop())
    assert disk.times_away == 1
    assert log.exists()
