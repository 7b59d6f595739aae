"""All jobs of a queue for who looks again and again: what is over is read once."""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.status_table import JobStatus, damaged_records, pending_rows, resting_row, running_rows
from accel_trainer.queue.store import QueueStore

# For so long a look reads files of jobs that are held or over and that it does not know yet; the next one goes on.
READS_FOR_S = 0.3


@dataclass(frozen=True)
class Entry:
    """A job, and what its row says."""

    job: QueuedJob
    row: JobStatus


class StatusBook:
    """The jobs of one queue, those that run first, then what is pending, held, failed (the newest first) and done."""

    def __init__(self, queue: QueueStore) -> None:
        self.queue = queue
        self._known: dict[Path, tuple[int, JobStatus]] = {}  # by when the file of a job had moved there
        self.damaged: list[Path] = []

    def look(self) -> list[Entry]:
        """All jobs as they are now. Raises QueueUnusable."""
        claims = self.queue.claims()
        entries = list(_entries(claims, running_rows(self.queue, claims)))
        pending = self.queue.jobs(JobState.PENDING)
        entries += _entries(pending, pending_rows(self.queue, pending))
        until = time.monotonic() + READS_FOR_S
        known: dict[Path, tuple[int, JobStatus]] = {}
        for state in (JobState.HELD, JobState.FAILED, JobState.DONE):
            found = sorted(((_changed_ns(job), job) for job in self.queue.jobs(state)), key=lambda pair: -pair[0])
            for changed, job in found:
                entries.append(Entry(job, self._row(job, changed, known, until)))
        self._known = known
        self.damaged = damaged_records(self.queue)
        return entries

    def _row(self, job: QueuedJob, changed: int, known: dict[Path, tuple[int, JobStatus]], until: float) -> JobStatus:
        """What is known of a job that rests, read now if there is time for it; else its name and state."""
        before = self._known.get(job.path)
        if before is None or before[0] != changed:
            if time.monotonic() > until:
                return JobStatus(job.name, job.state)
            before = changed, resting_row(self.queue, job)
        known[job.path] = before
        return before[1]


def _entries(jobs: Sequence[QueuedJob], rows: Iterable[JobStatus]) -> Iterable[Entry]:
    return (Entry(job, row) for job, row in zip(jobs, rows, strict=True))


def _changed_ns(job: QueuedJob) -> int:
    """When the file of a job was moved to where it is."""
    with suppress(OSError):
        return job.path.lstat().st_ctime_ns
    return 0
