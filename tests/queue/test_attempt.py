"""How an attempt is judged, and that nothing of it stays."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers import wait_until

from accel_trainer import processes
from accel_trainer.config import Job
from accel_trainer.errors import UserError
from accel_trainer.processes import Owner, this_host
from accel_trainer.queue import attempt as attempt_module
from accel_trainer.queue.attempt import Attempt
from accel_trainer.queue.launcher import Launch
from accel_trainer.queue.trainer import Trainer
from accel_trainer.runs import RunState, Status


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
    return processes.with_variable("ACCEL_TRAIN_TOKEN", token)


def test_killing_a_trainer_leaves_nothing_of_it(tmp_path):
    trainer = Trainer(Sleeper((), {}, 1, (".wait()",)), "token-1", tmp_path / "log")
    wait_until(lambda: len(left("token-1")) == 2)
    trainer.kill()
    assert trainer.exit_code == -signal.SIGKILL
    wait_until(lambda: not left("token-1"), timeout_s=5)
    trainer.end()


def test_what_outlives_its_launcher_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("accel_trainer.queue.trainer.REST_S", 0.2)
    trainer = Trainer(Sleeper((), {}, 1, ("",)), "token-2", tmp_path / "log")
    wait_until(lambda: trainer.exit_code is not None)
    assert len(left("token-2")) == 1
    trainer.end()
    assert not left("token-2")


def test_a_launcher_dies_with_its_runner(tmp_path):
    code = (
        "from pathlib import Path; import sys, time; sys.path.insert(0, sys.argv[2]);"
        "from test_attempt import Sleeper; from accel_trainer.queue.trainer import Trainer;"
        "Trainer(Sleeper((), {}, 1, ('; import time; time.sleep(60)',)), 'token-3', Path(sys.argv[1]));"
        "print('started', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "log"), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
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


def test_a_run_folder_in_which_another_process_trains_is_refused(attempt, tmp_path):
    owner = Owner.new()
    attempt.run.write_status(Status(state=RunState.TRAINING, token=owner.token, host=owner.host))
    attempt_module._take_over(attempt)  # its runner lives, but nothing trains any more
    trainer = Trainer(Sleeper((), {}, 1, (".wait()",)), owner.token, tmp_path / "log")
    try:
        wait_until(lambda: len(left(owner.token)) == 2)
        with pytest.raises(UserError, match="another process is training in"):
            attempt_module._take_over(attempt)
    finally:
        trainer.kill()


def test_what_a_dead_process_left_in_a_run_folder_is_ended_first(attempt, tmp_path, monkeypatch):
    monkeypatch.setattr("accel_trainer.queue.trainer.REST_S", 0.2)
    dead = Owner(this_host(), "another-boot-1-x")
    attempt.run.write_status(Status(state=RunState.TRAINING, token=dead.token, host=dead.host))
    Trainer(Sleeper((), {}, 1, ("",)), dead.token, tmp_path / "log")
    wait_until(lambda: len(left(dead.token)) == 1)
    attempt_module._take_over(attempt)
    assert not left(dead.token)


@pytest.mark.parametrize(("age_s", "refused"), [(5, True), (3600, False)])
def test_a_silent_trainer_of_another_machine_does_not_keep_its_folder_for_ever(attempt, age_s, refused):
    said = Status(state=RunState.TRAINING, token="theirs", host="another-host", updated=time.time() - age_s)
    attempt.run.write_status(said)
    with pytest.raises(UserError) if refused else nullcontext():
        attempt_module._take_over(attempt)
