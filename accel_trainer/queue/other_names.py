"""Two names of one job: where a file system cannot rename without replacing, a job is linked to its place.

Its name in running/ is removed then. Where a link has reported an error it is not known whether it was made: the job
may be at its place, or have moved on from there, and a second link would double it. So two rules hold together. Who
takes a job away from any place removes the name in running/ before doing anything else with it (`remove_others`). Who
has to link again looks first through all places in the order in which jobs move (`has_moved_on`). Then either the look
finds the job, which is in running/ for as long as its other name is, or that name is gone and the second link fails.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from accel_trainer.core import rename
from accel_trainer.core.exclusive_move import is_copy
from accel_trainer.core.lease import Owner
from accel_trainer.core.rename import attributes, create_new, remove_file, rename_noreplace
from accel_trainer.queue.layout import JobState, QueuedJob, QueuePaths, QueueUnusable, file_name


@dataclass(frozen=True)
class OtherNames:
    """The other names of files of one queue."""

    paths: QueuePaths

    def remove_others(self, taken: Path, job: QueuedJob) -> None:
        """Of a job that was just taken from where it was, before anything else is done with it: who was linking it
        there has left another name in running/, removes it now, or does not know whether the link was made, and would
        make it again."""
        with suppress(OSError, QueueUnusable):  # another process has it now, or it cannot be known
            if others := [path for path in self._being_linked(job) if path != taken]:
                about = attributes(taken)
                for path in others:
                    if _is_file(path, about) or is_copy(taken, about, path):
                        remove_file(path)

    def _being_linked(self, job: QueuedJob) -> list[Path]:
        """The files of a job's name in running/ that processes move to the state that it is in."""
        moved = (claim for claim in self.paths.claims() if claim.destination is job.state)
        found = [claim.path for claim in moved if claim.name == file_name(job.own_name)]
        return found if job.state is not JobState.PENDING else [*found, *self.paths.being_added(job.name)]

    def has_moved_on(self, taken: Path, name: str) -> bool:
        """Whether a job that was to be linked to its place is there, or has moved on from there."""
        for state in JobState:
            rename.list_anew(self.paths.of(state))
        return self.other(taken, name) is not None

    @cached_property
    def are_linked(self) -> bool:
        """Whether moves to this queue go by links here, as far as can be seen."""
        probe = self.paths.of(JobState.RUNNING) / f".{Owner.new().token}.tmp"
        try:
            os.close(create_new(probe, 0o600))
            try:
                rename_noreplace(probe, probe.with_name(f"{probe.stem}.moved.tmp"))
            finally:
                for path in (probe, probe.with_name(f"{probe.stem}.moved.tmp")):
                    path.unlink(missing_ok=True)
        except OSError:
            return True
        return False

    def other(self, taken: Path, name: str) -> Path | None:
        """Where a job is that was linked to its place, or has moved on from there. Raises QueueUnusable, OSError.

        Where hard links are not counted, as on sshfs, it is known by its time, its size and its content.
        """
        about = attributes(taken)
        # One that is moved on meanwhile is met where it was or where it goes.
        for state in (*JobState, JobState.PENDING, JobState.DONE, JobState.FAILED):
            for job in self.paths.listed(state):
                if job.path == taken or not (about.st_nlink > 1 or job.own_name == name):
                    continue
                if _is_file(job.path, about) or (about.st_nlink < 2 and is_copy(taken, about, job.path)):
                    return job.path
        return None


def _is_file(path: Path, about: os.stat_result) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.lstat(path), about)
    return False
