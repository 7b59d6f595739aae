"""A worker that is sent for one answer."""

import errno
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from accel_trainer.core import processes
from accel_trainer.core.errors import UserError
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch import call_worker as call_worker_module
from accel_trainer.launch.call_worker import (
    STOP_SIGNALS,
    WorkerFailed,
    WorkerStopped,
    call_worker,
    called_worker,
    listening,
)
from accel_trainer.launch.command import Launch


class Script(Launch):
    """A script in place of an accelerate launch; it knows the file to answer in as sys.argv[1]."""

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-c", *self.worker_args]


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    return tmp_path / "answer.json"


def script(code: str, answer: Path) -> Script:
    return Script((), {}, 1, (f"import os, sys, time, pathlib\n{code}", str(answer)))


def writes(content: object) -> str:
    return f"pathlib.Path(sys.argv[1]).write_text({json.dumps(content)!r})"


def test_the_answer_counts_and_not_the_exit_code(answer: Path, tmp_path: Path) -> None:
    launch = script(f"{writes({'acc1': 50})}; sys.exit(1)", answer)
    assert call_worker(launch, answer, tmp_path / "log", StopRequest()) == {"acc1": 50}


def test_problems_are_those_of_the_user(answer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        call_worker(script(writes({"problems": ["one", "two"]}), answer), answer, tmp_path / "log", StopRequest())
    assert caught.value.problems == ["one", "two"]


def test_a_worker_without_an_answer_leaves_its_last_words(answer: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match="ValueError: oh"):
        call_worker(script("raise ValueError('oh')", answer), answer, tmp_path / "log", StopRequest())


def test_of_a_worker_that_is_stopped_nothing_stays(
    answer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, tokens = StopRequest(), []
    start = call_worker_module.ProcessGroup

    def started(launch: Launch, token: str, log: Path) -> call_worker_module.ProcessGroup:
        tokens.append(token)
        stop.signal = 2
        return start(launch, token, log)

    monkeypatch.setattr(call_worker_module, "ProcessGroup", started)
    began = time.monotonic()
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); time.sleep(100)"
    assert call_worker(script(code, answer), answer, tmp_path / "log", stop) is None
    assert time.monotonic() - began < 30
    assert not processes.pids_with_env(TOKEN_VARIABLE, tokens[0])


def test_a_signal_as_soon_as_there_is_a_folder_leaves_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make = tempfile.mkdtemp
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def make_and_signal(**names: str) -> str:
        folder = make(dir=tmp_path / "temporary", **names)
        signal.raise_signal(signal.SIGINT)
        return folder

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "mkdtemp", make_and_signal)
    try:
        with (
            pytest.raises(WorkerStopped),
            called_worker("test", lambda place: script("time.sleep(60)", place / "answer.json")),
        ):
            pass
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("few", [0, 1, 2, 4])
def test_with_few_open_files_the_error_is_the_first_one_and_no_folder_stays(tmp_path: Path, few: int) -> None:
    code = f"""
import os, resource, tempfile
from pathlib import Path
from accel_trainer.launch.call_worker import called_worker
from accel_trainer.launch.command import Launch

tempfile.tempdir = {str(tmp_path)!r}
names = os.listdir("/proc/self/fd")
resource.setrlimit(resource.RLIMIT_NOFILE, (len(names) - 1 + {few},) * 2)
try:
    with called_worker("evaluate", lambda place: Launch((), {{}}, 1, ())):
        pass
except OSError as error:
    print(error.errno, error.__context__)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(errno.EMFILE), "None"], ended
    assert list(tmp_path.glob("accel-train-*")) == []


def test_who_listens_is_told_how_far_the_worker_is(answer: Path, tmp_path: Path) -> None:
    code = f"""
from accel_trainer.launch.call_worker import ProgressNote
answer = pathlib.Path(sys.argv[1])
ProgressNote(answer, rank=1)(9, 9)
time.sleep(0.3)
note = ProgressNote(answer, rank=0)
note(3, 10)
note(4, 10)  # too soon to be noted
time.sleep(0.4)
note(10, 10)
time.sleep(0.3)
{writes({})}
"""
    heard: list[tuple[int | None, int | None]] = []
    with listening(lambda done, total: heard.append((done, total))):
        call_worker(script(code, answer), answer, tmp_path / "log", StopRequest())
    assert list(dict.fromkeys(heard)) == [(None, None), (3, 10), (10, 10)]
