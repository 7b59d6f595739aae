"""Runs a contestant, and sees from outside how it went: its speed, its first step, its memory."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
from clock import Note, notes
from contestants import PEERS, Contestant, Work

BENCHMARKS = Path(__file__).parent
POLL_S = 0.5
LIMIT_S = 900


class Failed(Exception):
    """A contestant did not do its work."""


@dataclass(frozen=True)
class Memory:
    """largest_mb: the most that one process had resident; all_mb: the most that all of them had together, where what
    several share is counted once, as seen twice a second."""

    largest_mb: float
    all_mb: float


@dataclass(frozen=True)
class Race:
    """One run of a contestant. began: when its process was started, in seconds since 1970."""

    work: Work
    began: float
    notes: Sequence[Note]
    memory: Memory

    @property
    def first_step_s(self) -> float:
        """From the start of the process to that of the first step."""
        return next(note.time for note in self.notes if note.is_step) - self.began

    @property
    def steady(self) -> float:
        """Images per second in the steps of the epochs after the first, without what is between epochs."""
        epochs = self._epochs()[1:]
        seconds = sum(epoch[-1] - epoch[0] for epoch in epochs)
        return sum(len(epoch) - 1 for epoch in epochs) * self.work.batch_size / seconds

    @property
    def whole(self) -> float:
        """Training images per second of the epochs after the first but the last, with all that is between epochs."""
        starts = [epoch[0] for epoch in self._epochs()[1:]]
        return (len(starts) - 1) * self.work.steps_per_epoch * self.work.batch_size / (starts[-1] - starts[0])

    def _epochs(self) -> list[list[float]]:
        """The times of each epoch's steps."""
        times, each = [note.time for note in self.notes if note.is_step], self.work.steps_per_epoch
        return [times[start : start + each] for start in range(0, len(times), each)]


def refuse_other_work(work: Work, seen: Sequence[Note]) -> None:
    """Raises Failed where a contestant has trained or evaluated more or less than the others, or in another order."""
    steps = [note.num_images for note in seen if note.is_step]
    if steps != [work.batch_size] * (work.num_epochs * work.steps_per_epoch):
        raise Failed(f"made {len(steps)} steps, of {sum(steps)} images")
    validated = sum(note.num_images for note in seen if not note.is_step)
    if validated != work.num_epochs * work.num_val:
        raise Failed(f"validated {validated} images, not {work.num_epochs * work.num_val}")
    turns = sum(before.is_step and not after.is_step for before, after in pairwise(seen))
    if turns != work.num_epochs:
        raise Failed(f"validated {turns} times, not {work.num_epochs}")


def race(contestant: Contestant, work: Work) -> Race:
    """Raises Failed."""
    folder = Path(tempfile.mkdtemp(prefix="accel-train-race-"))
    try:
        command = contestant.prepare(work, folder)
        log = folder / "log.txt"
        began = time.time()
        memory = run(command, folder, log, environment(folder))
        seen = notes(folder / "clock")
        refuse_other_work(work, seen)
        return Race(work, began, seen, memory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    """One thread for everybody's arithmetic, no GPU, no network, nobody's own settings."""
    one_thread = {"OMP_NUM_THREADS": "1", "ACCEL_TRAIN_CORES": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**unsettled_environment(folder), **one_thread}


def unsettled_environment(folder: Path) -> dict[str, str]:
    """No network, nobody's own settings; all cores and GPUs."""
    return {
        **os.environ,
        "PYTHONPATH": str(BENCHMARKS),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
    }


def run(command: Sequence[str], folder: Path, log: Path, environment: dict[str, str]) -> Memory:
    """Run a command to its end; what memory it took. Raises Failed.

    A process counts from the memory of the one that starts it, so this one must be smaller: it imports no torch.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    all_mb, deadline = 0.0, time.monotonic() + LIMIT_S
    try:
        while True:
            # The kernel's own word, of the process and all descendants that were waited for.
            ended, code, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(code)
                break
            if time.monotonic() > deadline:
                raise Failed(f"did not end within {LIMIT_S} s")
            all_mb = max(all_mb, resident_mb(process.pid))
            time.sleep(POLL_S)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise Failed(f"exit code {process.returncode}: {last_line(log)}")
    return Memory(usage.ru_maxrss / 1024, all_mb)


def resident_mb(pid: int) -> float:
    """Of a process and all its descendants, now; proportional set sizes, so that what is shared counts once."""
    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total / 2**20


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def make_data(folder: Path) -> Path:
    """The tensors that everybody trains on. By another process: this one stays small, and imports no torch."""
    file = folder / "digits.pt"
    subprocess.run([sys.executable, str(PEERS / "make_data.py"), str(file)], check=True)
    return file
