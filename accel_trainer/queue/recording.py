"""How an attempt has ended is written into the queue: where its job goes, and why."""

from pathlib import Path
from typing import NamedTuple

from accel_trainer.launch.outcome import Ending, EndingKind
from accel_trainer.queue.requests import Requests
from accel_trainer.queue.retries import Failures, Retries
from accel_trainer.queue.store import JobGone, JobState, Queue, QueuedJob


class Recorded(NamedTuple):
    """What became of the job; and its failures so far, where it is tried again."""

    ending: Ending
    failures: Failures | None = None

    @property
    def has_failed(self) -> bool:
        return self.ending.kind is EndingKind.FAILED and self.failures is None


def record_ending(
    queue: Queue, retries: Retries, claimed: QueuedJob, ending: Ending, log: Path, limit: int
) -> Recorded:
    """Move a claimed job to where it belongs now. It is tried again `limit` times. Raises QueueUnusable."""
    failures: Failures | None = None
    try:
        match ending.kind:
            case EndingKind.DONE:
                queue.finish(claimed, JobState.DONE)
            case EndingKind.BACK_TO_PENDING:
                queue.release(claimed)
            case EndingKind.HELD:
                queue.hold(claimed)
            case EndingKind.FAILED:
                failures = _fail(queue, retries, claimed, ending, log, limit)
            case EndingKind.DISCARDED:
                _give_up(queue, claimed)
    except JobGone as error:
        ending = Ending(EndingKind.DISCARDED, str(error))
    if claimed.owner is not None:
        Requests(queue).forget(claimed.owner.token)
    if failures is None and ending.kind in (EndingKind.DONE, EndingKind.FAILED):
        retries.forget(claimed.name)
    return Recorded(ending, failures)


def take_over(queue: Queue, retries: Retries, job: QueuedJob) -> bool:
    """Put back a job whose owner is gone, or where somebody has asked for it to be put; whether nobody was faster."""
    ending = as_asked(queue, job, Ending(EndingKind.BACK_TO_PENDING))
    return record_ending(queue, retries, job, ending, job.path, 0).ending.kind is not EndingKind.DISCARDED


def as_asked(queue: Queue, job: QueuedJob, otherwise: Ending) -> Ending:
    """How a claim ends that its owner gives up: as somebody has asked."""
    assert job.owner is not None
    if (request := Requests(queue).of(job.owner.token)) is not None:
        return Ending(request.cut.kind, request.cut.reason)
    return otherwise


def _fail(queue: Queue, retries: Retries, claimed: QueuedJob, ending: Ending, log: Path, limit: int) -> Failures | None:
    """Put a job that has failed back, where it is to be tried again, and give its failures; else into failed/."""
    before = retries.of(claimed)
    number = 1 if before is None else before.number + 1
    reason = ending.reason or "no reason given"
    if ending.may_be_retried and number <= limit:
        failures = retries.add(claimed, number, reason)  # first: whoever is killed now has counted it
        queue.release(claimed)
        return failures
    tried = f" (tried {number} times)" if number > 1 else ""
    queue.finish(claimed, JobState.FAILED, f"{reason}{tried}\nlog: {log}")
    return None


def _give_up(queue: Queue, claimed: QueuedJob) -> None:
    """The run folder has become another's. Where the claim is still ours, the job may be run when that is over."""
    if claimed.path.exists():
        queue.release(claimed)
