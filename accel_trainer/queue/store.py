"""The queue as folders: a job is a file, its state is the folder it is in, a change of state is a rename.

Renames are atomic on local disks and on NFS, but on NFS one may succeed and report an error: who won is decided by
whether the target is there, not by the call.
"""

import filecmp
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, read_text, remove_stale_temp_files, write_atomic
from accel_trainer.core.lease import Owner
from accel_trainer.launch.attempt_files import new_log, newest_log
from accel_trainer.queue.layout import (
    ClaimedJob,
    JobState,
    QueuedJob,
    QueuePaths,
    QueueUnusable,
    file_name,
    natural_key,
    reason_path,
    without_number,
)

MAX_REASON = MEBIBYTE


class QueueStore:
    """A queue folder. Every method may be called by any number of processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.paths = folder, QueuePaths(folder)

    def create(self) -> None:
        """Make the folders there are not yet. Raises QueueUnusable."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for folder in (self.paths.of(state) for state in JobState if state is not JobState.PENDING):
                if folder.is_symlink():
                    raise QueueUnusable(
                        f"the queue {self.folder} cannot be used: {folder} is a symbolic link, which may lead where no "
                        "rename can move a job; make it a folder (that of the whole queue may be a link)"
                    )
                folder.mkdir(exist_ok=True)
            self.paths.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise QueueUnusable(f"the queue {self.folder} cannot be used: {error.strerror}") from error
        for folder in (*(self.paths.of(state) for state in JobState), self.paths.logs):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise QueueUnusable(f"the queue {self.folder} cannot be used: no permission to write in {folder}")

    def remove_half_written(self) -> None:
        """Remove what processes that were killed have left half-written."""
        for folder in self.paths.all:
            remove_stale_temp_files(folder)

    def jobs(self, state: JobState) -> list[QueuedJob]:
        """The jobs in a state, 2 before 10."""
        return sorted(self.paths.listed(state), key=lambda job: (natural_key(job.name), job.name))

    def claims(self) -> list[ClaimedJob]:
        """The jobs that are running, each with its owner. Raises QueueUnusable."""
        return [job for job in self.jobs(JobState.RUNNING) if isinstance(job, ClaimedJob)]

    def states(self) -> dict[str, JobState]:
        """Where every job is. One that is in several places is done only if it is nowhere before that."""
        states: dict[str, JobState] = {}
        for job in self._in_passing():
            for name in _names(job):
                states.setdefault(name, job.state)
        return states

    def find(self, name: str) -> QueuedJob | None:
        """The job of a name in the state that `states` has for it, the newest of several that are done or failed."""
        found = [job for job in self._in_passing() if name in _names(job)]
        first = [job for job in found if job.state is found[0].state]
        return max(first, key=lambda job: _modified_ns(job.path), default=None)

    def _in_passing(self) -> Iterator[QueuedJob]:
        """All jobs, so that one which is moved meanwhile, to be run or back, is met where it was or where it goes."""
        first = (JobState.PENDING, JobState.HELD, JobState.RUNNING)
        for state in (*first, JobState.PENDING, JobState.DONE, JobState.FAILED):
            yield from self.paths.listed(state)

    # -- changes of state ---------------------------------------------------------------------------------

    def add(self, name: str, content: bytes, *, replace: bool = False) -> Path:
        """Put a job file into the queue, whole at once. Raises UserError if one of this name is pending."""
        path = self.folder / f"{name}.json"
        if path.exists() and not replace:
            raise UserError(f"{name}: a job of this name is in the queue already")
        try:
            write_atomic(path, content)
        except OSError as error:
            raise QueueUnusable(f"{path} cannot be written: {error.strerror}") from error
        return path

    def claim(self, job: QueuedJob, owner: Owner | None = None) -> ClaimedJob | None:
        """Claim a pending job, for this process if no owner is given; None if another was faster."""
        owner = owner or Owner.new()
        target = self.paths.claim(job.name, owner)
        if not _moved(job.path, target):
            return None
        return ClaimedJob(job.name, target, owner=owner)

    def release(self, job: QueuedJob) -> Path:
        """Return a job to pending, where it can be claimed again, under its own name: its run folder follows from that.

        A newcomer that has taken the name meanwhile is given another one.
        """
        target = self.folder / f"{job.name}.json"
        # In this order: what is there when the job itself is gone is the job, returned by another runner.
        if target.exists() and job.path.exists():
            self._move(QueuedJob(job.name, target, JobState.PENDING), JobState.PENDING)
        return self._move(job, JobState.PENDING)

    def hold(self, job: QueuedJob) -> Path:
        """Move a job to held/, where no runner claims it."""
        return self._move(job, JobState.HELD)

    def retry(self, job: QueuedJob) -> Path:
        """Put a job that is over back, under the name it had."""
        own = _names(job)[-1]
        path = self._move(QueuedJob(own, job.path, job.state), JobState.PENDING)
        reason_path(job.path).unlink(missing_ok=True)
        return path

    def remove(self, job: QueuedJob) -> None:
        """Remove a job from the queue for good."""
        job.path.unlink(missing_ok=True)
        reason_path(job.path).unlink(missing_ok=True)

    def move_to(self, other: "QueueStore", job: QueuedJob) -> Path:
        """Put a job into the same state in another queue, on the same or another drive; its reason with it."""
        reason = self.reason(job)
        name = _names(job)[-1]
        if any(found.name == name for found in other.jobs(job.state)):
            raise UserError(f"{name}: a job of this name is {job.state} in {other.folder}")
        target = other.paths.of(job.state) / f"{name}.json"
        content, about = job.path.read_bytes(), job.path.stat()
        write_atomic(target, content)
        os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))  # the same submission
        if reason is not None:
            write_atomic(reason_path(target), reason + "\n")
        self.remove(job)
        return target

    def finish(self, job: QueuedJob, state: JobState, reason: str | None = None) -> Path:
        """Put a job into done/ or failed/, with the reason beside it."""
        path = self._move(job, state)
        beside = reason_path(path)
        if reason is None:
            beside.unlink(missing_ok=True)
        else:
            with suppress(OSError):  # the disk is full: the job is where it belongs, and the runner reports the reason
                write_atomic(beside, reason.rstrip() + "\n")
        return path

    def reason(self, job: QueuedJob) -> str | None:
        """Why a job is in failed/."""
        try:
            return read_text(reason_path(job.path), MAX_REASON).strip()
        except OSError:
            return None

    def _move(self, job: QueuedJob, state: JobState) -> Path:
        """Rename into a folder, beside what has the same name there unless that is the same job file."""
        folder, stem = self.paths.of(state), file_name(job.name)
        target, number = folder / f"{stem}.json", 2
        while os.path.lexists(target) and (target == job.path or not _same_content(job.path, target)):
            target, number = folder / f"{stem}~{number}.json", number + 1
        if not _moved(job.path, target):
            raise JobGone(f"{job.name}: its file {job.path} is gone: another process or a person has moved it")
        return target

    def newest_log(self, name: str) -> Path | None:
        """The log of the last attempt at a job; None before the first."""
        return newest_log(self.paths.logs, file_name(name))

    def next_log(self, name: str) -> Path:
        """A new, empty log for the next attempt at a job."""
        try:
            return new_log(self.paths.logs, file_name(name))
        except OSError as error:
            raise QueueUnusable(f"no log can be made in {self.paths.logs}: {error.strerror}") from error


class JobGone(UserError):
    """A job's file was moved by another process or a person."""


def _moved(source: Path, target: Path) -> bool:
    """Rename; whether it was ours is decided by the target being there, not by the call."""
    try:
        source.rename(target)
    except OSError as error:
        if os.path.lexists(source):  # it is not permitted: trying again would not help
            raise QueueUnusable(f"{source} cannot be moved to {target.parent}: {error.strerror}") from error
        return os.path.lexists(target)
    return True


def _names(job: QueuedJob) -> tuple[str, ...]:
    """Its name in its folder, and its own."""
    own = without_number(job.name)
    return (job.name, own) if job.state.is_over and own != job.name else (job.name,)


def _modified_ns(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_mtime_ns
    return 0


def _same_content(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)
    return False
