"""What is to be done in a queue, as seen when it was last looked at: which jobs may be run, in which order, and which
wait for what."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import this_host
from accel_trainer.queue.broken_disks import BrokenDisks
from accel_trainer.queue.checker import PendingChecker
from accel_trainer.queue.control import Pause, Pauses
from accel_trainer.queue.dependencies import Requirements, Unmet, cycles, failed_parent
from accel_trainer.queue.layout import JobGone, JobState, QueuedJob
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.slots import Allocation
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs, refuse_gone

LOOK_EVERY_S = 2.0
# Looking may take this part of the time, however many jobs there are.
LARGEST_PART = 0.05
# All jobs are checked before the first one begins; but with thousands of them, what is known to be valid does not wait.
PATIENCE_S = 60.0


class Scheduler:
    """Looks at a queue now and then. Invalid files are moved to failed/."""

    def __init__(
        self,
        queue: QueueStore,
        checker: PendingChecker,
        retries: Retries,
        refused: Callable[[QueuedJob, str], None],
        stuck: StuckJobs,
        disks: BrokenDisks | None = None,
    ) -> None:
        """refused: called with each job that is refused, and the reason. stuck: the jobs that are left alone. disks:
        those for which jobs wait."""
        self._queue, self._checker, self._retries, self._refused = queue, checker, retries, refused
        self._stuck, self._disks = stuck, disks
        self.pending: Sequence[QueuedJob] = ()
        self.running: Sequence[QueuedJob] = ()
        self.valid: dict[QueuedJob, Requirements] = {}
        self.missing: dict[str, Unmet] = {}
        self.backing_off: Collection[str] = ()
        self.pause: Pause | None = None
        self.strays: Mapping[Path, str] = {}
        self.has_rejected = False  # what waits for a job that was refused is to be looked at again
        self._looked = self._cost_s = self._refusing_s = 0.0
        self._checking_since: float | None = None
        self._blocked_since: float | None = None

    @property
    def is_checked(self) -> bool:
        """Whether all files that were there are known to be valid or invalid."""
        return not self._checker.is_busy

    @property
    def may_begin(self) -> bool:
        """Whether what is known to be valid may start before all is checked."""
        return self.is_checked or (
            self._checking_since is not None and time.monotonic() - self._checking_since > PATIENCE_S
        )

    def is_due(self, *, wanted: bool) -> bool:
        """Whether it is time to look again: soon where it is `wanted`, as far as that costs little."""
        pause_s = self._cost_s / LARGEST_PART if wanted else max(LOOK_EVERY_S, self._cost_s / LARGEST_PART)
        return time.monotonic() - self._looked >= pause_s

    def refresh(self) -> None:
        """Raises QueueUnusable and OSError."""
        began, self._refusing_s = time.monotonic(), 0.0
        try:
            refuse_gone(self._queue)
            self._look()
            self.strays = self._queue.paths.strays()
        finally:
            self._looked = time.monotonic()
            self._cost_s = self._looked - began - self._refusing_s

    def _look(self) -> None:
        self.pause = Pauses(self._queue).of(this_host())
        pending = [job for job in self._queue.jobs(JobState.PENDING) if job not in self._stuck]
        valid, invalid = self._checker.check(pending)
        for job, error in self._checker.unreadable.items():
            self._stuck.add(job, error)
        pending = [job for job in pending if job not in self._checker.unreadable]
        self.missing, in_vain = self._find_missing(valid)
        began = time.monotonic()
        for job, reason in (*invalid, *in_vain.items()):
            self.refuse(job, reason)
            valid.pop(job, None)
            self.missing.pop(job.name, None)
        self._refusing_s = time.monotonic() - began  # that is done once, and no part of looking
        refused = {job for job, _ in invalid} | in_vain.keys()
        self.has_rejected = bool(refused)
        self.pending = [job for job in pending if job not in refused]
        self.valid = dict(sorted(valid.items(), key=lambda item: -item[1].priority))  # else as they were: by name
        self._note_checking()
        self.running = self._queue.jobs(JobState.RUNNING)
        self.backing_off = self._retries.backing_off(valid)
        self._note_blocked()

    def take(self, job: QueuedJob) -> None:
        """The job is not to be chosen again, before the next `refresh`."""
        self.valid.pop(job, None)

    @property
    def waiting(self) -> set[str]:
        """The names of jobs that may not start: they wait for others or a disk, back off, or one of their name
        is running."""
        waiting = {*self.missing, *self.backing_off, *(job.name for job in self.running)}
        if self._disks:
            waiting |= self._disks.waiting({job.name: needs.run for job, needs in self.valid.items()})
        return waiting

    @property
    def is_blocked(self) -> bool:
        """Whether nothing runs and all that is pending waits, and not only for a moment: folders are not read all at
        once, and a job that moves from one to another is then in none."""
        return self._blocked_since is not None and time.monotonic() - self._blocked_since > LOOK_EVERY_S

    def _note_checking(self) -> None:
        if self.is_checked:
            self._checking_since = None
        elif self._checking_since is None:
            self._checking_since = time.monotonic()

    def _note_blocked(self) -> None:
        is_running = any(job not in self._stuck for job in self.running)
        if not self.pending or is_running or not all(job.name in self.missing for job in self.pending):
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = time.monotonic()

    def _find_missing(self, valid: Mapping[QueuedJob, Requirements]) -> tuple[dict[str, Unmet], dict[QueuedJob, str]]:
        """What the jobs that wait are waiting for; and those that wait in vain, for themselves or for what has failed,
        with the reason."""
        if not any(needs.waits for needs in valid.values()):
            return {}, {}
        states = self._queue.states()
        found = {job.name: needs.missing(states) for job, needs in valid.items() if needs.waits}
        waiting: dict[str, Unmet] = {name: missing for name, missing in found.items() if missing}
        reasons = cycles(waiting)
        for name, missing in waiting.items():
            if (parent := failed_parent(missing)) is not None:
                reasons.setdefault(name, self._why_with(parent))
        return waiting, {job: f"{job.path}: {reasons[job.name]}" for job in valid if job.name in reasons}

    def _why_with(self, parent: str) -> str:
        found = self._queue.find(parent)
        reason = None if found is None else self._queue.reason(found)
        why = f": {reason.splitlines()[0]}" if reason else ""
        return f"after: {parent!r} has failed{why}"

    def refuse(self, job: QueuedJob, reason: str) -> None:
        """Move a job that cannot be run into failed/, with the reason."""
        try:
            self._queue.finish(job, JobState.FAILED, reason)
        except JobGone:
            return  # another runner has refused it
        except (UserError, OSError) as error:
            self._stuck.add(job, error)
            return
        self._stuck.remove(job)
        self._refused(job, reason)


def choose_next(
    jobs: Mapping[QueuedJob, Requirements],
    waiting: Collection[str],
    fit: Callable[[Requirements], Allocation | None],
    could_fit: Callable[[Requirements], bool] = lambda needs: True,
) -> tuple[QueuedJob, Allocation] | None:
    """The job to run next and its place, of those that may be claimed, in their order.

    One that needs more room than there is now lets those of the same priority pass, and holds back all that have a
    lower one: so what is urgent gets its room, and nothing stands idle for what is not.
    """
    held_back_below: int | None = None
    for job, needs in jobs.items():
        if held_back_below is not None and needs.priority < held_back_below:
            return None
        if job.name in waiting or not could_fit(needs):
            continue
        if (place := fit(needs)) is not None:
            return job, place
        held_back_below = needs.priority
    return None
