"""Claims whose owners are dead: they are found, and returned to pending."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import is_stale
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.process_group import POLL_S, ending_leftovers
from accel_trainer.queue.finish import AttemptResult, finish_claim
from accel_trainer.queue.heartbeat import HeartbeatObserver
from accel_trainer.queue.layout import ClaimedJob, UndecidedMove
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs

# How often a runner looks for them.
LOOK_EVERY_S = 0.5


def requeue(queue: QueueStore, retries: Retries, job: ClaimedJob) -> bool:
    """Return a job whose owner is dead to pending, or do what was asked of it; False if another process was faster.

    One that the owner was just moving goes to where it was to be. Raises QueueUnusable, and UndecidedMove where only
    another machine can tell what became of that.
    """
    if job.destination is not None:
        return queue.settle(job) is not None
    result = AttemptResult(Outcome(OutcomeKind.INTERRUPTED), job.path)
    return finish_claim(queue, retries, job, result).outcome.kind is not OutcomeKind.SUPERSEDED


class OwnerState(Enum):
    """What is known of the owner of a claim: its lease expires when nothing was heard of it for long."""

    ALIVE = auto()
    DEAD = auto()
    EXPIRED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True)
class OwnerReport:
    """A claim, what is known of its owner, and for how long nothing was heard of it (0 for one of this machine)."""

    job: ClaimedJob
    state: OwnerState
    silence_s: float = 0.0


class Reclaimer:
    """Finds the claims of one queue whose owners are dead, by processes of this machine and signs of life of others.

    Of claims that are a cluster's Slurm knows more: they are left alone.
    """

    def __init__(
        self, queue: QueueStore, retries: Retries, *, with_expired: bool = False, stuck: StuckJobs | None = None
    ) -> None:
        """with_expired: `reclaim` takes also the claims of other machines from which nothing was heard for long.
        stuck: the claims that cannot be moved, which are then left alone; otherwise the first one is an error.
        """
        self._queue, self._retries, self._with_expired = queue, retries, with_expired
        self._stuck = stuck
        self._observer = HeartbeatObserver(queue)
        self._looked = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time for `reclaim` again."""
        return time.monotonic() - self._looked > LOOK_EVERY_S

    def forget_dead(self) -> None:
        """Remove the signs of life of runners that are dead."""
        self._observer.remove_dead()

    def reports(self, claims: Iterable[ClaimedJob]) -> Iterator[OwnerReport]:
        """What is known of the owners of these claims. Silence counts from the first time that they are looked at."""
        claims = [job for job in claims if job.owner.cluster is None]
        silence_s = self._observer.silence_s(claims)
        for job in claims:
            if job.owner.is_dead():
                yield OwnerReport(job, OwnerState.DEAD)
            elif (seconds := silence_s.get(job.path.name)) is None:
                yield OwnerReport(job, OwnerState.ALIVE)
            else:
                yield OwnerReport(job, OwnerState.EXPIRED if is_stale(seconds) else OwnerState.UNKNOWN, seconds)

    async def reclaim(self) -> AsyncIterator[ClaimedJob]:
        """Return to pending, one by one, the jobs whose owners are dead; not those with which another was faster.

        Raises QueueUnusable.
        """
        claims = self._queue.claims()
        for report in self.reports(job for job in claims if self._stuck is None or job not in self._stuck):
            expired = self._with_expired and report.state is OwnerState.EXPIRED
            if not (expired or report.state is OwnerState.DEAD):
                continue
            for _ in ending_leftovers(report.job.token):
                await asyncio.sleep(POLL_S)
            try:
                is_ours = requeue(self._queue, self._retries, report.job)
            except UndecidedMove:  # `accel-train reclaim` says why
                continue
            except (UserError, OSError) as error:
                if self._stuck is None:
                    raise
                self._stuck.add(report.job, error)
                continue
            if is_ours:
                yield report.job
        self._looked = time.monotonic()
