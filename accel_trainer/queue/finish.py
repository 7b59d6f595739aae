"""Where a claimed job goes when an attempt at it is over."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.core.machine_errors import why_of_machine
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.control import ControlAction, ControlRequest, Requests
from accel_trainer.queue.layout import ClaimedJob, Ending, JobGone, JobState, QueueUnusable
from accel_trainer.queue.retries import FailureRecord, Retries
from accel_trainer.queue.store import QueueStore


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt at a claimed job ended, where its output is, and how often the job is tried again if it fails.

    run: the folder in which it trained, where that is known.
    """

    outcome: Outcome
    log: Path
    retries: int = 0
    run: Path | None = None


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
    if finished.state is None:
        queue.doubt(claimed)  # it may be there all the same
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
            queue.finish(claimed, JobState.FAILED, outcome.reason, Ending.CANCELED)
            return FinishedClaim(outcome, JobState.FAILED)
        case OutcomeKind.FOLDER_IN_USE:
            waits = _counted(lambda: retries.add_wait(claimed, outcome.reason or "", outcome.wait_s))
            queue.release(claimed)
            return FinishedClaim(outcome, JobState.PENDING, waits)
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
        failures = _counted(lambda: retries.add_of_machine(claimed, reason))
        queue.release(claimed)
        return FinishedClaim(outcome, JobState.PENDING, failures)
    if _is_retried(retries, claimed, outcome, result):
        failures = retries.add(claimed, number, reason)  # first: a runner that is killed now has counted it
        queue.release(claimed)
        return FinishedClaim(outcome, JobState.PENDING, failures)
    tried = f" (tried {number} times)" if number > 1 else ""
    queue.finish(claimed, JobState.FAILED, f"{reason}{tried}\nlog: {result.log}")
    return FinishedClaim(outcome, JobState.FAILED)


def _counted(add: Callable[[], FailureRecord]) -> FailureRecord | None:
    """What is noted of a job that is no failure of its own; None where it cannot be written, as on the disk that is
    full: jobs wait for that."""
    try:
        return add()
    except QueueUnusable as error:
        if why_of_machine(error) is None:
            raise
        return None


def _is_retried(retries: Retries, claimed: ClaimedJob, outcome: Outcome, result: AttemptResult) -> bool:
    """Whether a job that has failed is tried again."""
    if outcome.is_machines_failure or outcome.kind is OutcomeKind.FOLDER_IN_USE:
        return True
    has_failed = outcome.kind is OutcomeKind.FAILED
    return has_failed and outcome.may_be_retried and _number(retries, claimed) <= result.retries


def _number(retries: Retries, claimed: ClaimedJob) -> int:
    """Of this failure, among those of the job."""
    before = retries.of(claimed)
    return 1 if before is None else before.number + 1
