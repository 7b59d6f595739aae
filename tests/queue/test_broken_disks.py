"""A disk that is full, or read-only, behind the run folders of a queue: its jobs wait, and nothing has failed."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from helpers import own_disk, write_job

from accel_trainer.core.errors import UserError
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind, state_of_mistake
from accel_trainer.queue import broken_disks
from accel_trainer.queue.events import DiskBroken, DiskWorks, Event, RetryScheduled
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.runner import Runner, RunnerOptions
from accel_trainer.queue.store import QueueStore

T = TypeVar("T")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with own_disk(tmp_path / "disk", "size=4m") as disk:
        yield disk


def fill(disk: Path) -> Callable[[], None]:
    """Fill a disk to its last byte; what frees it again."""
    rest = disk / "rest"
    subprocess.run(["dd", "if=/dev/zero", f"of={rest}", "bs=4k"], capture_output=True)
    return rest.unlink


def close(disk: Path) -> Callable[[], None]:
    """Mount a disk again so that it can only be read; what undoes that."""

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    remount("ro")
    return lambda: remount("rw")


class Lab:
    """A runner whose attempts begin as real ones do, with the run folder, and then are done."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue, self.events, self.tried, self.trained = QueueStore(folder), list[Event](), list[str](), list[str]()
        self.queue.create()
        monkeypatch.setattr(broken_disks, "AGAIN_S", 0.05)
        self.runner = Runner(self.queue, Machine((), False, 2), self.events.append, RunnerOptions(retry_after_s=0.01))
        monkeypatch.setattr(self.runner.stop, "listen", lambda *_: None)

    async def attempt(self, attempt: Attempt, *_: object) -> Outcome:
        self.tried.append(attempt.job.name)
        try:
            attempt.run.create()
        except UserError as error:
            return Outcome(OutcomeKind.FAILED, str(error), state_of_mistake(error))
        self.trained.append(attempt.job.name)
        return Outcome(OutcomeKind.DONE)

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def names(self, state: JobState) -> list[str]:
        return [job.name for job in self.queue.jobs(state)]

    def run_until_mended(self, mend: Callable[[], None], is_time: Callable[[], bool]) -> None:
        """Run all; the disk is mended when it is time."""

        def wait() -> None:
            deadline = time.monotonic() + 20
            while not is_time() and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.3)
            mend()

        thread = threading.Thread(target=wait)
        thread.start()
        self.runner.run()
        thread.join()


@pytest.fixture
def lab(in_place_of_trainers: Callable[[object], None], monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(Path("training_queue"), monkeypatch)
    in_place_of_trainers(lab.attempt)
    return lab


@pytest.mark.parametrize("break_disk", [fill, close], ids=["full", "read-only"])
def test_jobs_wait_for_a_broken_disk_while_those_of_another_are_trained(
    lab: Lab, disk: Path, break_disk: Callable[[Path], Callable[[], None]]
) -> None:
    for name in "abc":
        write_job(lab.queue.folder / f"{name}.json", model_dir=str(disk / name))
    write_job(lab.queue.folder / "d.json")
    lab.run_until_mended(break_disk(disk), lambda: "d" in lab.trained)
    assert lab.tried.count("a") == 2
    assert lab.tried.count("b") == lab.tried.count("c") == 1, "they were not even tried"
    assert lab.trained[0] == "d"
    assert sorted(lab.trained) == ["a", "b", "c", "d"]
    assert (lab.names(JobState.FAILED), lab.runner.num_failed) == ([], 0)
    (broken,), (works,) = lab.of(DiskBroken), lab.of(DiskWorks)
    assert broken.place == works.place
    assert broken.place.is_relative_to(disk)
    assert [event.number for event in lab.of(RetryScheduled)] == [None], "that is no retry of the job's"


def test_a_full_disk_of_queue_and_runs_is_waited_for_and_loses_nothing(
    disk: Path, in_place_of_trainers: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(disk / "training_queue", monkeypatch)
    in_place_of_trainers(lab.attempt)
    for name in "ab":
        write_job(lab.queue.folder / f"{name}.json", model_dir=str(disk / name))
    lab.run_until_mended(fill(disk), lambda: bool(lab.of(DiskBroken)))
    assert lab.tried[0] == "a"
    assert lab.tried.count("a") + lab.tried.count("b") == 3
    assert lab.names(JobState.DONE) == ["a", "b"]


def test_a_run_folder_that_is_a_file_is_still_the_users_mistake(lab: Lab) -> None:
    Path("file").touch()
    write_job(lab.queue.folder / "a.json", model_dir=str(Path("file/run").absolute()))
    write_job(lab.queue.folder / "b.json", model_dir=f"/{'x' * 300}/run")
    lab.runner.run()
    assert lab.names(JobState.FAILED) == ["a", "b"]
    assert lab.of(DiskBroken) == []
