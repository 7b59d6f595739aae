"""What all tests share: an environment of their own, and the command line as a user has it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

REPOSITORY = Path(__file__).parent.parent
# A job that trains in seconds and has neither BatchNorm nor dropout, whose results depend on the process count.
QUICK_JOB: dict[str, Any] = {
    "architecture": "squeezenet1_1",
    "architecture_args": {"dropout": 0.0},
    "dataset": "digits",
    "image_size": 32,
    "num_epochs": 2,
    "batch_size": 64,
    "optimizer": "AdamW",
    "optimizer_args": {"lr": 0.0003},
    "trackers": [],
}


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working folder: nothing that the user has configured counts, nothing of theirs is touched."""
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in (
        "WANDB_API_KEY",
        "WANDB_MODE",
        "HF_HOME",
        "XDG_CACHE_HOME",
        "CUDA_VISIBLE_DEVICES",
        "ACCEL_TRAIN_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(work)
    return work


def write_job(path: Path, **changes: Any) -> Path:
    """A quick job with some parameters changed; those set to None are left out."""
    job = {key: value for key, value in {**QUICK_JOB, **changes}.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(job))
    return path


COMMAND = [sys.executable, "-m", "accel_trainer.cli"]
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli() -> Cli:
    """Runs accel-train in the test's working folder; the result has its exit code and output."""

    def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=540,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts accel-train and gives its process; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        kill_tree(process.pid)
        process.communicate()


def kill_tree(pid: int) -> None:
    """kill -9 of a process and all that descends from it."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            os.kill(member.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    psutil.wait_procs(family, timeout=30)


def wait_until(condition: Callable[[], Any], timeout_s: float = 120) -> Any:
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        time.sleep(0.02)
    return value


def trainers_in(folder: Path) -> list[int]:
    """Processes that train something in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words, place = process.cmdline(), process.cwd()
        except psutil.Error:
            continue
        if "accel_trainer.training.worker" in " ".join(words) and place.startswith(str(folder)):
            found.append(process.pid)
    return found
