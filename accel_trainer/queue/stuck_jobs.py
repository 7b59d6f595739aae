"""Jobs with which something goes wrong that is theirs alone, as where a file may not be moved: the others go on."""

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import rename_over
from accel_trainer.core.lease import Owner
from accel_trainer.core.machine_errors import told
from accel_trainer.core.rename import make_folder, remove_file
from accel_trainer.core.text import first_line
from accel_trainer.queue.layout import JobState, QueuedJob, QueueUnusable
from accel_trainer.queue.store import QueueStore

# How long a job is left alone with which something has gone wrong.
AGAIN_S = 30.0
TRIAL_BYTES = 4096


@dataclass
class _Stuck:
    since: float
    problem: str


class StuckJobs:
    """The jobs of a queue for which nothing can be done: each is reported once, and tried again now and then."""

    def __init__(self, queue: QueueStore, report: Callable[[QueuedJob, str], None]) -> None:
        """report: called with a job and what is wrong."""
        self._queue, self._report = queue, report
        self._stuck: dict[Path, _Stuck] = {}

    def __contains__(self, job: QueuedJob) -> bool:
        """Whether a job is to be left alone for now."""
        known = self._stuck.get(job.path) if self._stuck else None  # of nearly all queues none is
        return known is not None and time.monotonic() - known.since < AGAIN_S

    def __len__(self) -> int:
        """How many jobs are stuck."""
        return len(self._stuck)

    def add(self, job: QueuedJob, error: Exception) -> None:
        """Note what has gone wrong with one job. Raises QueueUnusable where it would with all of them."""
        refuse_gone(self._queue)
        try:
            refuse_unusable(self._queue)
        except QueueUnusable as unusable:
            raise (error if isinstance(error, QueueUnusable) else unusable) from unusable
        problem = (
            str(error) if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {first_line(error)}"
        )
        known = self._stuck.get(job.path)
        self._stuck[job.path] = _Stuck(time.monotonic(), problem)
        if known is None or known.problem != problem:
            self._report(job, problem)

    def remove(self, job: QueuedJob) -> None:
        """Note that all is well with a job."""
        self._stuck.pop(job.path, None)


def refuse_unusable(queue: QueueStore) -> None:
    """Move a file of our own through all states, as jobs are. Raises QueueUnusable."""
    try:
        on_disk(lambda: _try_to_move(queue), queue.folder)
    except OSError as error:
        where = queue.folder if error.filename is None else error.filename
        raise QueueUnusable(f"the queue {queue.folder} cannot be used: {where}: {told(error)}") from error


def _try_to_move(queue: QueueStore) -> None:
    name = f".trial.{Owner.new().token}.tmp"  # removed with what is half-written, should this process be killed
    place = queue.folder / name
    try:
        place.write_bytes(bytes(TRIAL_BYTES))
        try:
            for state in (JobState.HELD, JobState.RUNNING, JobState.DONE, JobState.FAILED):
                folder = queue.paths.of(state)
                make_folder(folder)
                place = rename_over(place, folder / name)
        finally:
            remove_file(place)
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(place.parent)) from error


def refuse_gone(queue: QueueStore) -> None:
    """Raises QueueUnusable where the folder of a queue that was there is gone. It is never made again."""
    try:
        is_there = stat.S_ISDIR(on_disk(partial(os.stat, queue.folder), queue.folder).st_mode)
    except OSError as error:
        is_there = False
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
            raise QueueUnusable(f"the queue {queue.folder} cannot be used: {told(error)}") from error
    if not is_there:
        raise QueueUnusable(
            f"the queue {queue.folder} is gone: somebody has moved or removed it, or its disk is "
            "away; what was there is as it was, and a runner that is given its new place goes on with it"
        )
