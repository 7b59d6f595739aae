"""What the jobs of a queue say, to find those that a new one would repeat, or share a run folder with."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from accel_trainer.config import EvaluationJob, QueueJob, read_queue_job
from accel_trainer.config.diff import describe
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import canonical
from accel_trainer.queue.layout import JobState, QueuedJob, natural_key
from accel_trainer.queue.store import QueueStore

# What a file is known by: its job's name, inode, size and times. A job that only moves to another state keeps them.
_Version = tuple[str, int, int, int]


class AlreadyQueued(UserError):
    """A job is in the queue by its name, and says the same there: there is nothing to do."""


@dataclass(frozen=True)
class _Content:
    """A job as its file says it. meaning: the same text for jobs that are the same but for their model_dir. folder: the
    run folder, with no symbolic links in it."""

    job: QueueJob
    meaning: str
    folder: str

    def is_same(self, job: QueueJob, meaning: str) -> bool:
        """Whether both say the same, under the name of the other one: a default model_dir follows from the name."""
        renamed = self.job.model_copy(update={"name": job.name})
        return self.meaning == meaning and renamed.base_path == job.base_path


class QueueContents:
    """The jobs of a queue that have not failed. Each look lists the folders, and reads what is new there."""

    def __init__(self, queue: QueueStore) -> None:
        self._queue = queue
        self._read: dict[_Version, _Content] = {}

    def problems(self, job: QueueJob) -> list[str]:
        """Why a job is in the queue already, by its name or by what it says, or cannot train in its folder: a line. One
        that has failed may be tried again. Raises AlreadyQueued, and QueueUnusable."""
        if not self._problems(job):
            return []
        self._queue.look_anew()  # what is in its way may be what this client of a network drive remembers
        return self._problems(job)

    def _problems(self, job: QueueJob) -> list[str]:
        there = self._look()
        meaning = _meaning(job)
        if named := {other: content for other, content in there if other.name == job.name}:
            other = _first(named)
            if (content := named[other]) is not None and content.is_same(job, meaning):
                raise AlreadyQueued(f"is {other.state} in the queue already, the same; `force` adds it anew")
            changed = "" if content is None else _changed(content.job, job)
            return [f"a job {job.name!r} is {other.state} in the queue{changed}; rename it, or add it with `force`"]
        same = [other for other, content in there if content is not None and content.is_same(job, meaning)]
        if same:
            other = _first(same)
            return [f"the same as {other.name!r}, which is {other.state} in the queue; `force` adds it anyway"]
        folder = os.path.realpath(job.run_path)
        beside = [(other, content) for other, content in there if content is not None and content.folder == folder]
        return _folder_problems(job, _not_over(beside))

    def run_folders(self) -> "RunFolders":
        """Those of the jobs that are not over. Raises QueueUnusable."""
        folders = RunFolders()
        there = [(other, content) for other, content in self._look() if content is not None]
        for job, where in _not_over(there):
            folders.note(job, where)
        return folders

    def _look(self) -> list[tuple[QueuedJob, _Content | None]]:
        """Each job with what it says; None where that cannot be read."""
        there, read = list[tuple[QueuedJob, _Content | None]](), dict[_Version, _Content]()
        for job in {job.path: job for job in self._queue.everywhere() if job.state is not JobState.FAILED}.values():
            content = None
            with suppress(UserError, OSError):  # it is damaged, or has just moved on
                version = _version(job)
                content = read[version] = self._read.get(version) or _content(job)
            there.append((job, content))
        self._read = read
        return there


class RunFolders:
    """Which job trains in which folder. Two jobs in one folder would be refused when the second one starts, or resume
    what the first has trained; that is wanted where one waits for the other (`after`)."""

    def __init__(self) -> None:
        self._jobs: dict[str, list[tuple[QueueJob, str]]] = {}

    def note(self, job: QueueJob, where: str) -> None:
        """Count a job in. where: as in "'b', which is pending in the queue"."""
        self._jobs.setdefault(os.path.realpath(job.run_path), []).append((job, where))

    def problems(self, job: QueueJob) -> list[str]:
        """Why a job cannot train in its folder: a line, if others will of which none waits for it, nor it for them."""
        return _folder_problems(job, self._jobs.get(os.path.realpath(job.run_path), []))


def _folder_problems(job: QueueJob, in_its_folder: Iterable[tuple[QueueJob, str]]) -> list[str]:
    others = [(other, where) for other, where in in_its_folder if other.name != job.name]
    if not others or any(other.name in job.after or job.name in other.after for other, _ in others):
        return []
    other, where = others[0]
    if isinstance(job, EvaluationJob):
        return [f"name: {job.run_path} is written by {other.name!r} too, which is {where}; give another `name`"]
    return [
        f"model_dir: {job.run_path} is the run folder of {other.name!r} too, which is {where}; "
        "choose another model_dir, or let one wait for the other (`after`)"
    ]


def _not_over(jobs: Iterable[tuple[QueuedJob, _Content]]) -> list[tuple[QueueJob, str]]:
    """Those that will be trained, each with where it is, in their order."""
    waiting = sorted((found for found in jobs if not found[0].state.is_over), key=lambda found: _order(found[0]))
    return [(content.job, f"{other.state} in the queue") for other, content in waiting]


def _version(job: QueuedJob) -> _Version:
    about = job.path.lstat()
    return job.name, about.st_ino, about.st_size, about.st_mtime_ns


def _content(job: QueuedJob) -> _Content:
    found = read_queue_job(job.path, job.name)
    return _Content(found, _meaning(found), os.path.realpath(found.run_path))


def _meaning(job: QueueJob) -> str:
    return canonical({key: value for key, value in job.completed().items() if key != "model_dir"})


def _changed(there: QueueJob, job: QueueJob) -> str:
    """', and this one has num_epochs 2 -> 4'; '' where one trains and the other evaluates."""
    if type(there) is not type(job):
        return ""
    then, now = there.completed(), job.completed()
    changes = {key: (then.get(key), now.get(key)) for key in {**then, **now} if then.get(key) != now.get(key)}
    return f", and this one has {describe(changes)}" if changes else ""


def _first(jobs: Iterable[QueuedJob]) -> QueuedJob:
    return min(jobs, key=_order)


def _order(job: QueuedJob) -> tuple[int, tuple[str, str]]:
    """By states, and 2 before 10."""
    return list(JobState).index(job.state), natural_key(job.name)
