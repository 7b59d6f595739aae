"""The queue as folders: a job is a file, its state is the folder it is in, a change of state moves the file.

A claim is a rename to a name that no other process gives. All other moves are those of `queue.moves`.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, read_text, remove_stale_temp_files, write_atomic, write_new
from accel_trainer.core.lease import Owner
from accel_trainer.core.machine_errors import told
from accel_trainer.core.place_lock import remove_left
from accel_trainer.core.rename import is_own_there, list_anew, make_folder, rename_unique, was_moved
from accel_trainer.launch.attempt_files import attempt_logs, new_log, newest_log
from accel_trainer.queue.layout import (
    ClaimedJob,
    Ending,
    JobGone,
    JobState,
    QueuedJob,
    QueuePaths,
    QueueUnusable,
    UndecidedMove,
    file_name,
    natural_key,
    outcome_path,
    reason_path,
)
from accel_trainer.queue.move_between import forget_copies, move_between, settle
from accel_trainer.queue.moves import Mover, attributes_if_there, cannot_move, forget_notes, is_being_taken
from accel_trainer.queue.submissions import Submissions

__all__ = ["JobGone", "QueueStore"]

MAX_REASON = MEBIBYTE


class QueueStore:
    """A queue folder. Every method may be called by any number of processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.paths = folder, QueuePaths(folder)
        self._mover = Mover(self.paths)

    def create(self) -> None:
        """Make the folders there are not yet. Raises QueueUnusable."""
        try:
            on_disk(self._make_folders, self.folder)
        except OSError as error:
            raise QueueUnusable(f"the queue {self.folder} cannot be used: {told(error)}") from error
        for folder in (*(self.paths.of(state) for state in JobState), self.paths.logs):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise QueueUnusable(f"the queue {self.folder} cannot be used: no permission to write in {folder}")

    def _make_folders(self) -> None:
        make_folder(self.folder, parents=True)
        for folder in (self.paths.of(state) for state in JobState if state is not JobState.PENDING):
            if folder.is_symlink():
                raise QueueUnusable(
                    f"the queue {self.folder} cannot be used: {folder} is a symbolic link, which may lead where no "
                    "rename can move a job; make it a folder (that of the whole queue may be a link)"
                )
            make_folder(folder)
        make_folder(self.paths.logs)

    def remove_half_written(self) -> None:
        """Remove what processes that were killed have left half-written, and finish or undo their moves."""
        self.settle_all()
        forget_copies(self._mover)
        for folder in self.paths.all:
            remove_stale_temp_files(folder)
        remove_left(self.paths.of(JobState.RUNNING))

    def jobs(self, state: JobState) -> list[QueuedJob]:
        """The jobs in a state, 2 before 10."""
        return sorted(self.paths.listed(state), key=lambda job: natural_key(job.name))

    def claims(self) -> list[ClaimedJob]:
        """The jobs that are running, each with its owner. Raises QueueUnusable."""
        return sorted(self.paths.claims(), key=lambda job: natural_key(job.name))

    def states(self) -> dict[str, JobState]:
        """Where every job is. One that is in several places is done only if it is nowhere before that."""
        states: dict[str, JobState] = {}
        for job in self.everywhere():
            for name in _names(job):
                states.setdefault(name, job.state)
        return states

    def find(self, name: str) -> QueuedJob | None:
        """The job of a name in the state that `states` has for it, the newest of several that are done or failed."""
        found = [job for job in self.everywhere() if name in _names(job)]
        first = [job for job in found if job.state is found[0].state]
        return max(first, key=lambda job: _modified_ns(job.path), default=None)

    def find_file(self, about: os.stat_result, name: str) -> QueuedJob | None:
        """Where a job's file is now, by what it was; None where it was changed or removed."""
        found = (job for job in self.everywhere() if name in _names(job) and was_moved(about, job.path))
        return next(found, None)

    def everywhere(self) -> Iterator[QueuedJob]:
        """All jobs, so that one which is moved meanwhile, to be run or back, is met where it was or where it goes: it
        may come twice."""
        first = (JobState.PENDING, JobState.HELD, JobState.RUNNING)
        for state in (*first, JobState.PENDING, JobState.DONE, JobState.FAILED):
            yield from self.paths.listed(state)

    # -- changes of state ---------------------------------------------------------------------------------

    def add(self, name: str, content: bytes, *, replace: bool = False) -> Path:
        """Put a job file into the queue, whole at once. Raises UserError if one of this name is pending."""
        path = self.folder / f"{name}.json"
        try:
            write_new(
                path,
                content,
                aside_in=self.paths.of(JobState.RUNNING),
                has_moved_on=lambda aside: self._mover.names.has_moved_on(aside, name),
            )
        except FileExistsError as error:
            if not replace:
                raise UserError(f"{name}: a job of this name is in the queue already") from error
            self._replace(path, content)
        except OSError as error:
            raise QueueUnusable(f"{path} cannot be written: {told(error)}") from error
        return path

    def _replace(self, path: Path, content: bytes) -> None:
        try:
            write_new(path, content, aside_in=self.paths.of(JobState.RUNNING), replace=True)
        except OSError as error:
            raise QueueUnusable(f"{path} cannot be written: {told(error)}") from error

    def claim(self, job: QueuedJob, owner: Owner | None = None) -> ClaimedJob | None:
        """Claim a pending job, for this process if no owner is given; None if another was faster, or it seems so: then
        `return_left_claims` finds the claim. Raises QueueUnusable."""
        owner = owner or Owner.new()
        target = self.paths.claim(job.name, owner)
        about = attributes_if_there(job.path)
        if is_being_taken(about):
            return None
        try:
            is_ours = rename_unique(job.path, target, waits=False)
        except OSError as error:
            raise cannot_move(job.path, target, error) from error
        if not is_ours:
            self._mover.doubts.add(target)
            return None
        self._mover.doubts.remove(target)  # of an earlier try in the same name
        if self._mover.names.are_linked or (about is not None and about.st_nlink > 1):
            self._mover.names.remove_others(target, job)
        return ClaimedJob(job.name, target, owner=owner)

    def doubt(self, claimed: ClaimedJob) -> None:
        """Nothing more is done with a claim of this process that is gone, or seems to be."""
        self._mover.doubts.add(claimed.path)

    def return_left_claims(self) -> bool:
        """Put back what this process has claimed and did not know of, and finish moves of that kind. Whether there are
        more, which this client of a network drive cannot open yet. Raises QueueUnusable."""
        is_waiting = False
        for job in self._mover.doubts.found(self.paths):
            if not is_own_there(job.path):
                is_waiting = True
                continue
            with suppress(JobGone, UndecidedMove):
                if job.destination is None:
                    self.release(job)
                else:
                    self.settle(job)
            self._mover.doubts.remove(job.path)
        return is_waiting

    def look_anew(self) -> None:
        """Have all folders of jobs listed as they are now, whatever this client of a network drive remembers."""
        for state in JobState:
            list_anew(self.paths.of(state))

    def list_pending_anew(self) -> None:
        """The same for the jobs that are pending."""
        list_anew(self.paths.of(JobState.PENDING))

    def release(self, job: QueuedJob) -> Path:
        """Return a job to pending, where it can be claimed again, under its own name: its run folder follows from that.

        A newcomer that has taken the name meanwhile is given another one.
        """
        return self._mover.move_keeping_name(job, JobState.PENDING)

    def hold(self, job: QueuedJob) -> Path:
        """Move a job to held/, where no runner claims it. One that has run keeps its name, as with `release`."""
        if isinstance(job, ClaimedJob):
            return self._mover.move_keeping_name(job, JobState.HELD)
        return self._mover.move(job, JobState.HELD)

    def retry(self, job: QueuedJob) -> Path:
        """Put a job that is over back, under its own name, or with a number where another one has that."""
        path = self._mover.move(job, JobState.PENDING)
        forget_notes(job)
        return path

    def remove(self, job: QueuedJob) -> None:
        """Remove a job from the queue for good. Raises JobGone."""
        self._mover.remove(job)
        Submissions(self.paths).forget(job)

    def move_to(self, other: "QueueStore", job: QueuedJob) -> Path:
        """Put a job into the same state in another queue, on the same or another drive; its reason with it."""
        name = job.own_name
        if any(found.own_name == name for found in other.jobs(job.state)):
            raise UserError(f"{name}: a job of this name is {job.state} in {other.folder}")
        reason, ending = self.reason(job), self.ending(job)
        submission = self._submission(job)
        target = move_between(self._mover, other._mover, job)
        if submission is not None:
            with suppress(OSError):
                Submissions(other.paths).take_over(job, target, submission)
        Submissions(self.paths).forget(job)
        self._note_reason(target, reason, ending if job.state is JobState.FAILED else None)
        forget_notes(job)
        return target

    def _submission(self, job: QueuedJob) -> str | None:
        """What is noted of a job's submission; None where nothing is, or its file cannot be read."""
        with suppress(OSError):
            return Submissions(self.paths).noted(job)
        return None

    def settle(self, job: ClaimedJob) -> Path | None:
        """Finish or undo the move of a job whose process is dead; None where another process has done so.

        Raises QueueUnusable and UndecidedMove.
        """
        return settle(self._mover, job)

    def settle_all(self) -> None:
        """Finish or undo all moves of processes of this machine that are dead, as far as it is known how."""
        for job in list(self.paths.claims()):
            if job.destination is not None and job.owner.is_dead():
                with suppress(UserError, OSError):
                    self.settle(job)

    def finish(self, job: QueuedJob, state: JobState, reason: str | None = None, ending: Ending | None = None) -> Path:
        """Put a job into done/ or failed/, with the reason beside it. ending: of one that is put into failed/, if it
        has not failed."""
        path = self._mover.move(job, state)
        if state is JobState.DONE:
            Submissions(self.paths).forget(job)
        self._note_reason(path, reason, ending or Ending.FAILED if state is JobState.FAILED else None)
        return path

    def _note_reason(self, path: Path, reason: str | None, ending: Ending | None) -> None:
        """On a full disk the job is where it belongs all the same, and the runner reports the reason."""
        for note, text in ((reason_path(path), reason), (outcome_path(path), ending)):
            with suppress(OSError):
                if text is None:
                    note.unlink(missing_ok=True)
                else:
                    write_atomic(note, text.rstrip() + "\n", durable=text is reason)

    def ending(self, job: QueuedJob) -> Ending:
        """Whether a job in failed/ has failed, or was canceled."""
        with suppress(OSError, ValueError):
            return Ending(read_text(outcome_path(job.path), MAX_REASON).strip())
        # Version 0.2 had it in the reason alone.
        return (
            Ending.CANCELED if (self.reason(job) or "").startswith(("canceled by ", "canceled in ")) else Ending.FAILED
        )

    def reason(self, job: QueuedJob) -> str | None:
        """Why a job is in failed/."""
        try:
            return read_text(reason_path(job.path), MAX_REASON).strip()
        except OSError:
            return None

    def newest_log(self, name: str) -> Path | None:
        """The log of the last attempt at a job; None before the first."""
        return newest_log(self.paths.logs, file_name(name))

    def attempt_logs(self, name: str) -> dict[int, Path]:
        """The logs of all attempts at a job, by their numbers."""
        return attempt_logs(self.paths.logs, file_name(name))

    def next_log(self, name: str) -> Path:
        """A new, empty log for the next attempt at a job."""
        try:
            return on_disk(partial(new_log, self.paths.logs, file_name(name)), self.paths.logs)
        except OSError as error:
            raise QueueUnusable(f"no log can be made in {self.paths.logs}: {told(error)}") from error


def _names(job: QueuedJob) -> tuple[str, ...]:
    """Its name in its folder, and its own."""
    return (job.name,) if job.own_name == job.name else (job.name, job.own_name)


def _modified_ns(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_mtime_ns
    return 0
