"""How an attempt is judged, and that nothing of it stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import wait_until

from accel_trainer import processes
from accel_trainer.queue.attempt import EndingKind, judge, last_words
from accel_trainer.queue.launcher import Launch
from accel_trainer.queue.trainer import Trainer
from accel_trainer.runs import RunState, Status

DONE, FAILED, BACK = EndingKind.DONE, EndingKind.FAILED, EndingKind.BACK_TO_PENDING


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text("some words\nCUDA exploded\n\n=====\n")
    return path


@pytest.mark.parametrize(
    ("state", "asked_to_stop", "expected"),
    [
        (RunState.FINISHED, False, DONE),
        (RunState.FINISHED, True, DONE),
        (RunState.PREEMPTED, True, BACK),
        (RunState.PREEMPTED, False, BACK),
        (RunState.INVALID, False, FAILED),
        (RunState.DIVERGED, False, FAILED),
        (RunState.FAILED, False, FAILED),
        (RunState.STARTING, False, FAILED),
        (RunState.TRAINING, False, FAILED),
        (RunState.STARTING, True, BACK),
        (RunState.TRAINING, True, BACK),
    ],
)
def test_the_last_word_of_the_trainer_decides(state, asked_to_stop, expected, log):
    status = Status(state=state, token="mine", error="why")
    assert judge(status, "mine", asked_to_stop=asked_to_stop, exit_code=0, log=log).kind is expected


@pytest.mark.parametrize("status", [None, Status(state=RunState.FINISHED, token="an earlier attempt's")])
def test_without_a_word_of_this_attempt_nothing_is_done_even_at_exit_code_0(status, log):
    ending = judge(status, "mine", asked_to_stop=False, exit_code=0, log=log)
    assert ending.kind is FAILED
    assert ending.reason.endswith("CUDA exploded")
    assert judge(status, "mine", asked_to_stop=True, exit_code=1, log=log).kind is BACK


def test_the_last_words_of_a_log_are_its_error_line_if_there_is_one(tmp_path):
    path = tmp_path / "log"
    path.write_text("error: model_dir: cannot write\nTraceback\n  something\n")
    assert last_words(path, 2) == "model_dir: cannot write"
    path.write_text("")
    assert last_words(path, -9) == "exit code -9"


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


def test_what_outlives_its_launcher_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("accel_trainer.queue.trainer.REST_S", 0.2)
    trainer = Trainer(Sleeper((), {}, 1, ("",)), "token-2", tmp_path / "log")
    wait_until(lambda: trainer.exit_code is not None)
    assert len(left("token-2")) == 1
    trainer.clear_up()
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
