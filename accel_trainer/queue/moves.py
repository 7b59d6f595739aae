"""Changes of a job's state: its file is moved, and never replaces another.

Where the file system renames without replacing, that is one call. Elsewhere the job is first taken: renamed to a name
in running/ that is this process's own and says where the job goes, which one of several processes can do; from there it
is linked to its place, and the name in running/ removed, or moved there by the right to the place. Who is killed in
between leaves that name, and the next look finishes the move (`settle`). A job that is copied to another file system is
recorded in moves/, too.
"""

import filecmp
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from accel_trainer.core import rename
from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import UserError
from accel_trainer.core.exclusive_move import MoveUndecided, move_own
from accel_trainer.core.machine_errors import told
from accel_trainer.core.rename import NO_FLAG, is_refused, remove_file, rename_noreplace, rename_unique, was_moved
from accel_trainer.queue.doubts import Doubts
from accel_trainer.queue.layout import (
    ClaimedJob,
    JobGone,
    JobState,
    QueuedJob,
    QueuePaths,
    QueueUnusable,
    file_name,
    moving_owner,
    outcome_path,
    own_name_path,
    read_claim,
    reason_path,
    without_number,
)
from accel_trainer.queue.other_names import OtherNames

# An empty file takes a name for no longer than this.
TAKEN_S = 5.0


@dataclass(frozen=True)
class Mover:
    """Moves the jobs of one queue.

    doubts: the names in running/ that were to be this process's own, and were not there when it looked.
    """

    paths: QueuePaths
    doubts: Doubts = field(default_factory=Doubts, compare=False)

    @cached_property
    def names(self) -> OtherNames:
        """The other names that files of this queue may have."""
        return OtherNames(self.paths)

    def move(self, job: QueuedJob, state: JobState) -> Path:
        """Move a job to a state: under its own name, or with a number where that is taken. Of a job file that is over
        already, in the very same words, one is kept.

        Raises JobGone where another process was faster, and QueueUnusable.
        """
        before, taken = attributes(job), None
        for target in self._targets(file_name(job.own_name), state):
            with suppress(FileExistsError):
                if taken is None and self._renamed(job, target, before):
                    return target
                taken = taken or self.take(job, state)
                return self._place(taken, target, job.path)
            if state.is_over and _has_content_of(target, taken or job.path):
                remove_file(taken or self.take(job, state))
                with suppress(OSError):
                    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
                return target
        raise _no_name(job.path, state)

    def move_keeping_name(self, job: QueuedJob, state: JobState) -> Path:
        """As `move`, but under its own name in any case: its run folder follows from that. A job that has taken the
        name meanwhile is given another one."""
        name = file_name(job.own_name)
        target = self.paths.of(state) / f"{name}.json"
        before, taken = attributes(job), None
        while True:
            try:
                if taken is None and self._renamed(job, target, before):
                    return target
                taken = taken or self.take(job, state)
                return self._place(taken, target, job.path)
            except FileExistsError:
                try:
                    # What was taken is here; times on sshfs are whole seconds, so another job may look like it.
                    self._make_way(QueuedJob(name, target, state), before if taken is None else None)
                except QueueUnusable:
                    if taken is not None:
                        with suppress(OSError):
                            move_own(taken, job.path, partial(self.names.has_moved_on, taken, name))
                    raise

    def remove(self, job: QueuedJob) -> None:
        """Remove a job for good. Raises JobGone and QueueUnusable; UserError for a folder that is named like a job."""
        if stat.S_ISDIR(attributes(job).st_mode):
            raise UserError(f"{job.name}: {job.path} is a folder, and no job; remove it by hand")
        taken = self.take(job, job.state)
        try:
            remove_file(taken)
        except OSError as error:
            self.doubts.add(taken)  # a later look puts it back
            raise QueueUnusable(f"{taken} cannot be removed: {told(error)}") from error
        forget_notes(job)

    def take(self, job: QueuedJob, state: JobState, *, even_if_empty: bool = False) -> Path:
        """Take a job to move it to a state: its new path, which no other process has. Raises JobGone, QueueUnusable."""
        taken = self.paths.claim(file_name(job.own_name), moving_owner(state))
        if is_being_taken(attributes_if_there(job.path)) and not even_if_empty:
            raise JobGone(f"{job.name}: its file {job.path} is empty: another process is just writing it")
        try:
            is_ours = rename_unique(job.path, taken)
        except OSError as error:
            raise cannot_move(job.path, taken, error) from error
        if not is_ours:
            self.doubts.add(taken)
            raise gone(job)
        self.names.remove_others(taken, job)
        return taken

    def place(self, taken: Path, name: str, state: JobState) -> Path:
        """Move a job that was taken to where it belongs. Raises JobGone and QueueUnusable.

        An empty file makes way: where there are no hard links, a process that was killed may have left it.
        """
        for target in self._targets(name, state):
            with suppress(FileExistsError):
                return self._place(taken, target)
            if _is_empty(target):
                self._make_way(QueuedJob(target.stem, target, state), None)
                with suppress(FileExistsError):
                    return self._place(taken, target)
        raise _no_name(taken, state)

    def settle(self, job: ClaimedJob) -> Path | None:
        """Finish a move whose process is dead; None where another process has done so. Raises QueueUnusable."""
        if (state := job.destination) is None:
            return None
        taken = self.paths.claim(job.name, moving_owner(state))
        try:
            if not rename_unique(job.path, taken):
                return None
            other = self.names.other(taken, job.name)
        except OSError as error:
            raise cannot_move(job.path, taken, error) from error
        if other is not None:
            remove_file(taken)
            return other
        try:
            return self.place(taken, job.name, state)
        except JobGone:
            return None

    # -- one step ----------------------------------------------------------------------------------------------------

    def _place(self, taken: Path, target: Path, back: Path | None = None) -> Path:
        """Move a job that was taken to one name, or back where that is not possible.

        Raises FileExistsError, JobGone and QueueUnusable.
        """
        name = read_claim(taken.stem)[0]
        try:
            move_own(taken, target, partial(self.names.has_moved_on, taken, name))
        except FileExistsError:
            raise
        except MoveUndecided as error:
            self.doubts.add(taken)  # a later look settles it
            raise cannot_move(taken, target, error) from error
        except OSError as error:
            if not is_refused(taken, target, error):
                self.doubts.add(taken)
                raise JobGone(
                    f"{taken} is gone: another process has moved it to another place than {target}"
                ) from error
            if back is not None:
                with suppress(OSError):
                    move_own(taken, back, partial(self.names.has_moved_on, taken, name))
            raise cannot_move(back or taken, target, error) from error
        return target

    def _renamed(self, job: QueuedJob, target: Path, before: os.stat_result) -> bool:
        """Rename at once; False where this file system cannot do so without replacing. Raises FileExistsError, JobGone
        and QueueUnusable."""
        try:
            on_disk(partial(rename_noreplace, job.path, target), job.path)
        except (FileExistsError, FileNotFoundError) as error:
            if is_refused(job.path, target, error):
                if isinstance(error, FileExistsError):
                    raise
                raise cannot_move(job.path, target, error) from error
            if not was_moved(before, target):
                raise gone(job) from error
        except OSError as error:
            if error.errno in NO_FLAG:
                return False
            if not was_moved(before, target):
                raise cannot_move(job.path, target, error) from error
        if before.st_nlink > 1:  # another client of this disk links
            self.names.remove_others(target, job)
        return True

    def _make_way(self, newcomer: QueuedJob, before: os.stat_result | None) -> None:
        """Give another name to the job that has taken this one; unless it is the job itself, by what that was before,
        which another process has returned."""
        with suppress(JobGone):
            taken = self.take(newcomer, newcomer.state, even_if_empty=True)
            is_itself = before is not None and was_moved(before, taken)
            targets = self._targets(newcomer.name, newcomer.state, first=1 if is_itself else 2)
            for target in targets:
                with suppress(FileExistsError):
                    self._place(taken, target, newcomer.path)
                    return

    def _targets(self, name: str, state: JobState, first: int = 1) -> Iterator[Path]:
        """The paths that a job may have in a state."""
        folder = self.paths.of(state)
        path = folder / f"{name}.json"
        if first == 1 and not (state.is_over and without_number(name) != name):
            yield path
        elif first == 1 and not os.path.lexists(path):
            is_new = _mark_as_own(path)
            yield path
            if is_new:  # another process was faster, with a job that may have got this number
                own_name_path(path).unlink(missing_ok=True)
        for number in range(2, 1_000_000):
            path = folder / f"{name}~{number}.json"
            if not (state.is_over and os.path.lexists(own_name_path(path))):
                yield path


def attributes(job: QueuedJob) -> os.stat_result:
    """The attributes of a job's file. Raises JobGone and QueueUnusable."""
    try:
        return rename.attributes(job.path)
    except FileNotFoundError as error:
        raise gone(job) from error
    except OSError as error:
        raise QueueUnusable(f"{job.path} cannot be moved: {told(error)}") from error


def gone(job: QueuedJob) -> JobGone:
    """The loser of a race has this to say."""
    return JobGone(f"{job.name}: its file {job.path} is gone: another process or a person has moved it")


def cannot_move(source: Path, target: Path, error: OSError) -> QueueUnusable:
    """The error for a move that is not possible, however often it is tried."""
    return QueueUnusable(f"{source} cannot be moved to {target.parent}: {told(error)}")


def _no_name(path: Path, state: JobState) -> QueueUnusable:
    return QueueUnusable(f"{path} cannot be moved: every name of the job is taken in {state}")


def forget_notes(job: QueuedJob) -> None:
    """Remove what was noted beside a job that has left."""
    if job.state.is_over and not os.path.lexists(job.path):
        for path in (reason_path(job.path), outcome_path(job.path), own_name_path(job.path)):
            with suppress(OSError):  # the job has left all the same
                remove_file(path)


def _mark_as_own(path: Path) -> bool:
    """Note that the name of the job that comes here is its own; whether that was not noted before."""
    try:
        with own_name_path(path).open("x") as file:
            file.write(f"{path.stem}\n")
    except FileExistsError:
        return False
    except OSError as error:
        raise QueueUnusable(f"{own_name_path(path)} cannot be written: {error.strerror}") from error
    return True


def _is_empty(path: Path) -> bool:
    with suppress(OSError):
        return os.lstat(path).st_size == 0
    return False


def attributes_if_there(path: Path) -> os.stat_result | None:
    """Those of a file as they are seen at once; None where there seems to be none."""
    with suppress(OSError):
        return os.lstat(path)
    return None


def is_being_taken(about: os.stat_result | None) -> bool:
    """Whether a process may just be taking a file's name by an empty file, as where there are no hard links."""
    return about is not None and about.st_size == 0 and abs(time.time() - about.st_mtime) < TAKEN_S


def _has_content_of(target: Path, path: Path) -> bool:
    with suppress(OSError):
        return target.is_file() and path.is_file() and filecmp.cmp(target, path, shallow=False)
    return False
