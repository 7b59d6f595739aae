"""Where a claimed job goes: after an attempt, or when its owner is dead."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import is_stale
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.process_group import POLL_S, ending_leftovers
from accel_trainer.queue.control import ControlAction, ControlRequest, Requests
from accel_trainer.queue.heartbeat import HeartbeatObserver
from accel_trainer.queue.layout import ClaimedJob, JobGone, JobState, UndecidedMove
from accel_trainer.queue.retries import FailureRecord, Retries
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs

# How often a runner looks for claims whose owners are dead.
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt at a claimed job ended, where its output is, and how often the job is tried again if it fails."""

    outcome: Outcome
    log: Path
    retries: int = 0


@dataclass(frozen=True)
class FinishedClaim:
    """Why and where a claimed job has gone.

    state: None where another process had moved it. failures: those so far, where the job is tried again.
    """

    outcome: Outcome
    state: JobState | None
    failures: FailureRecord | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the job has failed for good; one that was canceled has not, though it is in failed/ too."""
        return self.state is JobState.FAILED and self.outcome.kind is OutcomeKind.FAILED


def finish_claim(queue: QueueStore, retries: Retries, claimed: ClaimedJob, result: AttemptResult) -> FinishedClaim:
    """Move a claimed job to where it belongs now. Raises QueueUnusable.

    Where a person has asked for it to be held or canceled, an attempt was interrupted for that.
    """
    request = Requests(queue).of(claimed.token)
    try:
        finished = _move(queue, retries, claimed, result, request)
    except JobGone as error:
        finished = FinishedClaim(Outcome(OutcomeKind.SUPERSEDED, str(error)), None)
    Requests(queue).forget(claimed.token)
    if finished.state in (JobState.DONE, JobState.FAILED):
        retries.forget(claimed.name)
    return finished


def _move(
    queue: QueueStore, retries: Retries, claimed: ClaimedJob, result: AttemptResult, request: ControlRequest | None
) -> FinishedClaim:
    outcome = result.outcome
    would_run_again = outcome.kind is OutcomeKind.INTERRUPTED or _is_retried(retries, claimed, outcome, result)
    if request is not None and would_run_again:
        outcome = request.outcome
    match outcome.kind:
        case OutcomeKind.DONE:
            queue.finish(claimed, JobState.DONE)
            return FinishedClaim(outcome, JobState.DONE)
        case OutcomeKind.INTERRUPTED:
            if request is not None and request.action is ControlAction.HOLD:
                queue.hold(claimed)
                return FinishedClaim(outcome, JobState.HELD)
            queue.release(claimed)
            return FinishedClaim(outcome, JobState.PENDING)
        case OutcomeKind.CANCELED:
            queue.finish(claimed, JobState.FAILED, outcome.reason)
            return FinishedClaim(outcome, JobState.FAILED)
        case OutcomeKind.FAILED:
            return _fail(queue, retries, claimed, outcome, result)
        case OutcomeKind.SUPERSEDED:
            # The run folder has become another's. Where the claim is still ours, the job may run when that is over.
            if claimed.path.exists():
                queue.release(claimed)
            return FinishedClaim(outcome, None)


def _fail(
    queue: QueueStore, retries: Retries, claimed: ClaimedJob, outcome: Outcome, result: AttemptResult
) -> FinishedClaim:
    """Return a job that has failed to pending, where it is to be tried again; else move it into failed/. The failure of
    a machine is no failure of the job, which is tried again as after an interruption, but later."""
    number = _number(retries, claimed)
    reason = outcome.reason or "no reason given"
    if outcome.is_machines_failure:
        failures = retries.add_of_machine(claimed, reason)
        queue.release(claimed)
        return FinishedClaim(outcome, JobState.PENDING, failures)
    if _is_retried(retries, claimed, outcome, result):
        failures = retries.add(claimed, number, reason)  # first: a runner that is killed now has counted it
        queue.release(claimed)
        return FinishedClaim(outcome, JobState.PENDING, failures)
    tried = f" (tried {number} times)" if number > 1 else ""
    queue.finish(claimed, JobState.FAILED, f"{reason}{tried}\nlog: {result.log}")
    return FinishedClaim(outcome, JobState.FAILED)


def _is_retried(retries: Retries, claimed: ClaimedJob, outcome: Outcome, result: AttemptResult) -> bool:
    """Whether a job that has failed is tried again."""
    if outcome.is_machines_failure:
        return True
    has_failed = outcome.kind is OutcomeKind.FAILED
    return has_failed and outcome.may_be_retried and _number(retries, claimed) <= result.retries


def _number(retries: Retries, claimed: ClaimedJob) -> int:
    """Of this failure, among those of the job."""
    before = retries.of(claimed)
    return 1 if before is None else before.number + 1


# -- claims whose owners are dead ---------------------------------------------------------------------------------


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
