"""What tests share: a quick job, the command line, and ways to watch and end processes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from accel_trainer.core import lease
from accel_trainer.core.errors import UserError

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
COMMAND = [sys.executable, "-m", "accel_trainer.cli"]


# Of a job that is trained to be evaluated: an epoch on three digits.
THREE_CLASSES: dict[str, Any] = {
    "architecture": "small_cnn",
    "architecture_args": {"features": [8, 8, 8]},
    "image_size": 16,
    "class_subset": [0, 1, 2],
    "num_epochs": 1,
}


def write_job(path: Path, **changes: Any) -> Path:
    """A quick job with some parameters changed; those set to None are left out."""
    job = {key: value for key, value in {**QUICK_JOB, **changes}.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(job))
    return path


class NoPlotter:
    """In the place of a trainer's Plotter: curves take longer to draw than tests train."""

    def __init__(self, run: object) -> None: ...

    def start(self) -> None: ...

    def draw(self, *, now: bool = False) -> None: ...

    def close(self) -> None: ...


def said_by(call: Callable[..., Any], *args: Any) -> str:
    """The one line of the error that a call raises."""
    with pytest.raises(UserError) as caught:
        call(*args)
    (line,) = caught.value.problems
    return line


def one_core() -> Iterator[None]:
    """A fixture: one core for torch, as the loader's threads have it. Tensors as small as a test's need no more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plant_no_file(path: Path, kind: str) -> None:
    """What is found where a file is expected: a pipe blocks whoever opens it, a device may never end."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/null")
        case "folder":
            path.mkdir()
        case _:
            raise ValueError(kind)


@contextmanager
def own_disk(folder: Path, options: str) -> Iterator[Path]:
    """A folder that is a disk in memory, of its own size and options. Only root can mount one: others skip the test."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk of its own can be mounted by root only")
    try:
        yield folder
    finally:
        # What a verb has started for a while, such as a checker, may not have ended yet.
        wait_until(lambda: subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0)


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


def dead_token() -> str:
    """The token of a process of this machine that has ended."""
    code = "from accel_trainer.core.lease import Owner; print(Owner.new().token)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def as_another_machine(patch: pytest.MonkeyPatch, host: str) -> None:
    """From now on this process is one of another machine, of this name."""
    patch.setenv(lease.HOST_VARIABLE, host)
    boot = hashlib.sha256(host.encode()).hexdigest()[:8]
    for name, value in {"boot_id": boot, "space_id": "0", "space_name": f"{boot}_{boot}_0"}.items():
        patch.setattr(lease, name, lambda value=value: value)


def file_names(folder: Path) -> list[str]:
    """All files in a folder and below, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def wait_until(condition: Callable[[], Any], timeout_s: float = 120) -> Any:
    """What the condition gives as soon as it is true. One that takes long to ask, as of all processes, is asked less
    often: it would take the processor from what is waited for."""
    deadline, began = time.monotonic() + timeout_s, time.thread_time()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        asked = time.thread_time()
        time.sleep(min(0.3, max(0.02, 5 * (asked - began))))
        began = time.thread_time()
    return value


def trainers_in(folder: Path) -> list[int]:
    """Processes that train something in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words, place = process.cmdline(), process.cwd()
        except psutil.Error:
            continue
        if "accel_trainer.workers.train" in " ".join(words) and place.startswith(str(folder)):
            found.append(process.pid)
    return found
