"""How long a queue still takes, by what its runs have taken so far.

A running job has what its trainer reports. A pending one has its epochs times the median time of an epoch, validation
included, of the runs in this queue with the same architecture and data set that are running or done. All of that is
divided by the number of jobs that run at once; it is never less than what a running job still takes.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from accel_trainer.config.glance import JobGlance, glance
from accel_trainer.core.errors import UserError
from accel_trainer.queue.heartbeat import HeartbeatObserver, runner_of
from accel_trainer.queue.layout import ClaimedJob, JobState, QueuedJob
from accel_trainer.queue.status_book import Entry
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import read_performance

# Of so many jobs the files are read: runs that are done, and pending jobs. More of these are of unknown length.
MOST_DONE, MOST_PENDING = 50, 1000


@dataclass(frozen=True)
class TimeLeft:
    """seconds: of `num_jobs` that are running or pending, `places` at once; None where it is known of none.
    num_unknown: the jobs among them of which it is not known, and which are not counted."""

    seconds: float | None
    num_jobs: int
    num_unknown: int
    places: int


class TimeLeftEstimator:
    """Estimates for one queue. What it has read of a file is read again when the file has changed."""

    def __init__(self, queue: QueueStore) -> None:
        self._queue = queue
        self._glances: dict[Path, tuple[int, JobGlance | None]] = {}
        self._paces: dict[Path, tuple[int, float | None]] = {}

    def estimate(self, entries: Sequence[Entry]) -> TimeLeft:
        """What is left of these jobs, which are all of the queue."""
        running = [entry for entry in entries if entry.job.state is JobState.RUNNING]
        pending = [entry for entry in entries if entry.job.state is JobState.PENDING]
        done = (entry for entry in entries if entry.job.state is JobState.DONE)
        paces = self._median_paces([*running, *islice(done, MOST_DONE)])
        now = [entry.row.left_s for entry in running]
        later = [self._pending_s(entry, paces) for entry in pending[:MOST_PENDING]]
        known = [seconds for seconds in (*now, *later) if seconds is not None]
        num_jobs, places = len(running) + len(pending), self._places(running)
        longest = max((seconds for seconds in now if seconds is not None), default=0.0)
        seconds = max(longest, sum(known) / places) if known else None
        return TimeLeft(seconds, num_jobs, num_jobs - len(known), places)

    def _pending_s(self, entry: Entry, paces: dict[tuple[str, str | None], float]) -> float | None:
        job = self._glance(entry.job)
        if job is None or job.architecture is None:
            return None
        pace = paces.get((job.architecture, job.dataset))
        num_epochs = job.num_epochs or _default_num_epochs()
        return None if pace is None else pace * max(0, num_epochs - _epochs_done(entry))

    def _median_paces(self, entries: Iterable[Entry]) -> dict[tuple[str, str | None], float]:
        """Seconds for an epoch, by architecture and data set."""
        found: dict[tuple[str, str | None], list[float]] = {}
        for entry in entries:
            job = self._glance(entry.job)
            if job is None or job.architecture is None or (pace := self._pace(RunFolder(job.run_path))) is None:
                continue
            found.setdefault((job.architecture, job.dataset), []).append(pace)
        return {alike: median(paces) for alike, paces in found.items()}

    def _pace(self, run: RunFolder) -> float | None:
        """Seconds for an epoch of a run, of all that it has measured; None before its first one."""
        changed = _modified_ns(run.performance)
        if changed and self._paces.get(run.path, (0, None))[0] != changed:
            pace = None
            with suppress(UserError):
                rows = [row for row in read_performance(run) if row.epoch > 0]
                epochs = {row.epoch for row in rows}
                pace = sum(row.seconds for row in rows) / len(epochs) if epochs else None
            self._paces[run.path] = changed, pace
        return self._paces.get(run.path, (0, None))[1] if changed else None

    def _glance(self, job: QueuedJob) -> JobGlance | None:
        changed = _modified_ns(job.path)
        if self._glances.get(job.path, (0, None))[0] != changed or not changed:
            self._glances[job.path] = changed, glance(job.path, job.name)
        return self._glances[job.path][1]

    def _places(self, running: Sequence[Entry]) -> int:
        """How many jobs run at once: by what the runners report that have one, and one for each job in Slurm."""
        heartbeats = HeartbeatObserver(self._queue).heartbeats() if running else {}
        owners = [entry.job.owner for entry in running if isinstance(entry.job, ClaimedJob)]
        in_slurm = sum(owner.cluster is not None for owner in owners)
        runners = {runner_of(owner) for owner in owners if owner.cluster is None and not owner.is_dead()}
        here = sum(heartbeats[runner].places if runner in heartbeats else 1 for runner in runners)
        return max(1, here + in_slurm)


def _epochs_done(entry: Entry) -> int:
    """Of a job that was interrupted; the one that it was in counts as none."""
    return 0 if entry.row.epoch is None else max(0, entry.row.epoch - 1)


def _default_num_epochs() -> int:
    """Of a job that does not say it."""
    from accel_trainer.config import Job

    return int(Job.model_fields["num_epochs"].default)


def _modified_ns(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0
