"""A disk that is full, or read-only, behind the run folders of a queue: its jobs wait, and nothing has failed."""

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from helpers import own_disk, write_job

from accel_trainer.config import read_job
from accel_trainer.core.errors import UserError
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind, state_of_mistake
from accel_trainer.queue import broken_disks
from accel_trainer.queue.broken_disks import BrokenDisks
from accel_trainer.queue.events import DiskBroken, DiskWorks, Event, RetryScheduled
from accel_trainer.queue.finish import AttemptResult, finish_claim
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.runner_options import RunnerOptions
from accel_trainer.queue.slurm import client
from accel_trainer.queue.slurm.reconcile import Reconciler
from accel_trainer.queue.slurm.script import SlurmOptions
from accel_trainer.queue.slurm.submitter import Submitter
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState

MACHINE = RunState.MACHINE_FAILED
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

    async def attempt(self, attempt: Attempt, *_: object) -> Outcome:
        self.tried.append(attempt.job.name)
        try:
            attempt.run.create(tries_to_write=True)
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


@pytest.fixture
def reports() -> list[tuple[Path, str | None]]:
    return []


def failure_in(place: Path) -> Outcome:
    return Outcome(OutcomeKind.FAILED, f"[Errno 28] No space left on device: '{place}/x'", MACHINE)


@pytest.mark.parametrize("kind", ["temporary files", "cache"])
@pytest.mark.parametrize("trains_here", [True, False], ids=["here", "on other nodes"])
def test_every_job_waits_for_the_disk_of_temporary_files_or_of_the_cache_where_it_trains(
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reports: list[tuple[Path, str | None]],
    kind: str,
    trains_here: bool,
) -> None:
    monkeypatch.setattr(broken_disks, "AGAIN_S", 0.0)
    place = disk / "folder"
    place.mkdir()
    if kind == "cache":
        monkeypatch.setattr(broken_disks, "cache_folder", lambda: place)
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
    (tmp_path / "queue").mkdir()
    disks = BrokenDisks(tmp_path / "queue", lambda where, why: reports.append((where, why)), trains_here=trains_here)
    runs, run = {"a": tmp_path / "a", "b": None}, tmp_path / "run"
    free = fill(disk)
    disks.note(run, failure_in(tmp_path))
    assert disks.waiting(runs) == set(), "that is not where it failed"
    disks.note(run, failure_in(place))
    assert disks.waiting(runs) == ({"a", "b"} if trains_here else set())
    free()
    disks.refresh()
    assert disks.waiting(runs) == set()
    assert reports == ([(place, "the disk is full"), (place, None)] if trains_here else [])


def test_where_there_is_no_folder_for_temporary_files_or_a_cache_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[tuple[Path, str | None]]
) -> None:
    def no_temporary_folder() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    def no_cache() -> Path:
        raise UserError("there is no home")

    monkeypatch.setattr(tempfile, "gettempdir", no_temporary_folder)
    monkeypatch.setattr(broken_disks, "cache_folder", no_cache)
    disks = BrokenDisks(tmp_path, lambda where, why: reports.append((where, why)))
    disks.note(None, failure_in(tmp_path))
    assert (bool(disks), reports) == (False, [])


def test_what_hands_jobs_to_slurm_waits_for_the_disks_that_it_shares_with_the_nodes(
    disk: Path, in_place_of_trainers: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes write in the run folders as this machine does; how a job ends is written by the node."""
    monkeypatch.setattr(broken_disks, "AGAIN_S", 0.05)
    monkeypatch.setattr(client, "cluster_name", lambda: "lab")
    monkeypatch.setattr(Reconciler, "reconcile", lambda reconciler: ({}, []))
    in_place_of_trainers(None)  # the nodes train
    queue, events = QueueStore(Path("training_queue")), list[Event]()
    queue.create()
    for name in "abc":
        path = write_job(queue.folder / f"{name}.json", model_dir=str(disk / name) if name in "ab" else "models/c")
        read_job(path).run_path.mkdir(parents=True)

    def note(event: Event) -> None:
        events.append(event)
        if isinstance(event, DiskBroken):
            threading.Timer(0.3, free).start()

    submitter = Submitter(queue, LaunchOptions(), SlurmOptions(), note, retry_after_s=0.01)
    tried, free = list[str](), fill(disk)

    def submit(words: object, text: str) -> int:
        (claimed,) = queue.claims()
        tried.append(claimed.name)
        is_full = claimed.name != "c" and shutil.disk_usage(disk).free == 0
        outcome = failure_in(disk / claimed.name) if is_full else Outcome(OutcomeKind.DONE)
        finish_claim(queue, Retries(queue, 0.01), claimed, AttemptResult(outcome, queue.folder))
        return len(tried)

    monkeypatch.setattr(client, "submit", submit)
    submitter.run()
    assert [job.name for job in queue.jobs(JobState.DONE)] == ["a", "b", "c"]
    assert sorted(tried[:3]) == ["a", "b", "c"]
    assert len(tried) == 5, "each was tried again only when there was room"
    assert [type(event) for event in events if isinstance(event, DiskBroken | DiskWorks)] == [DiskBroken, DiskWorks]
