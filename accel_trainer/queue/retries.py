"""Jobs that are tried again after a failure: how often each has failed, and how long it waits."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from accel_trainer.core.machine_errors import told
from accel_trainer.core.record_store import Lines, RecordStore, Time, Within
from accel_trainer.core.rename import make_folder
from accel_trainer.queue.layout import JobGone, QueuedJob, QueueUnusable
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import Submissions

FIRST_WAIT_S, LONGEST_WAIT_S = 60.0, 3600.0


@dataclass(frozen=True)
class FailureRecord:
    """The failures of one submission of a job so far: how many, when the last one was (in seconds since 1970), and
    why.

    number: without those of the machine, which `retries` of the job do not count; of_machine: how many those were in a
    row, up to the last one. wait_s: for how long the job waits, where that does not follow from these: its run folder
    was in use, which is no failure.
    """

    submission: str
    number: Annotated[int, Within(0, 1_000_000)]
    time: Time
    reason: Lines
    of_machine: Annotated[int, Within(0, 1_000_000)] = 0
    wait_s: Annotated[float, Within(0, LONGEST_WAIT_S)] = 0.0

    @property
    def in_a_row(self) -> int:
        """How many attempts have failed one after the other, of whatever kind."""
        return self.number + self.of_machine


class Retries:
    """The failures of a queue's jobs, in `retries/<name>.json`, for all its runners. A damaged file counts as none."""

    def __init__(self, queue: QueueStore, first_wait_s: float = FIRST_WAIT_S) -> None:
        self._folder, self._first_wait_s = queue.paths.retries, first_wait_s
        self._records, self._submissions = RecordStore(FailureRecord), Submissions(queue.paths)

    def add(self, job: QueuedJob, number: int, reason: str) -> FailureRecord:
        """The n-th failure of a job. Raises JobGone and QueueUnusable."""
        return self._add(job, number, reason, of_machine=0)

    def add_of_machine(self, job: QueuedJob, reason: str) -> FailureRecord:
        """A failure that is the machine's and not the job's. Those of long ago do not count for how long the job waits.

        Raises JobGone and QueueUnusable.
        """
        before = self.of(job)
        if before is None:
            return self._add(job, 0, reason, of_machine=1)
        is_new = not 0 <= time.time() - before.time < 2 * LONGEST_WAIT_S
        return self._add(job, before.number, reason, of_machine=1 if is_new else before.of_machine + 1)

    def add_wait(self, job: QueuedJob, reason: str, wait_s: float) -> FailureRecord:
        """No failure: the job is to wait for so many seconds. Raises JobGone and QueueUnusable."""
        before = self.of(job)
        number, of_machine = (0, 0) if before is None else (before.number, before.of_machine)
        return self._add(job, number, reason, of_machine=of_machine, wait_s=wait_s)

    def _add(self, job: QueuedJob, number: int, reason: str, *, of_machine: int, wait_s: float = 0.0) -> FailureRecord:
        try:
            failures = FailureRecord(self._submissions.note(job), number, time.time(), reason, of_machine, wait_s)
        except FileNotFoundError as error:
            raise JobGone(f"{job.name}: its file {job.path} is gone") from error
        try:
            make_folder(self._folder)
            self._records.write(self._path(job.name), failures)
        except OSError as error:  # a failure that is not counted would be tried again for ever
            raise QueueUnusable(f"{self._path(job.name)} cannot be written: {told(error)}") from error
        return failures

    def of(self, job: QueuedJob) -> FailureRecord | None:
        """Those of this submission of a job."""
        failures = self._records.read(self._path(job.name))
        with suppress(OSError):
            if failures is not None and self._submissions.is_of(job, failures.submission):
                return failures
        return None

    def forget(self, name: str) -> None:
        """Count the failures of a job from 0 again."""
        with suppress(OSError):
            self._path(name).unlink()

    def backoff_s(self, failures: FailureRecord) -> float:
        """Seconds that the job still waits: twice as long after each failure; 0 where the clock was set back."""
        by_failures = min(self._first_wait_s * 2.0 ** min(failures.in_a_row - 1, 30), LONGEST_WAIT_S)
        wait = failures.wait_s or by_failures
        since = time.time() - failures.time
        return max(0.0, wait - since) if since >= 0 else 0.0

    def backing_off(self, jobs: Iterable[QueuedJob]) -> dict[str, float]:
        """The names of the jobs that still wait, with the seconds."""
        known = self._known()
        failures = {job.name: self.of(job) for job in jobs if job.name in known}
        waits = {name: self.backoff_s(f) for name, f in failures.items() if f is not None}
        return {name: seconds for name, seconds in waits.items() if seconds > 0}

    def _known(self) -> set[str]:
        with suppress(OSError):
            return {name.removesuffix(".json") for name in os.listdir(self._folder)}  # noqa: PTH208 - only names
        return set()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
