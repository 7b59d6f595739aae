"""Where a claimed job goes: after an attempt, or when its owner is dead."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from accel_trainer.core.lease import is_stale
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.launch.process_group import POLL_S, ending_leftovers
from accel_trainer.queue.control import Requests
from accel_trainer.queue.heartbeat import HeartbeatObserver
from accel_trainer.queue.layout import ClaimedJob, JobState
from accel_trainer.queue.retries import FailureRecord, Retries
from accel_trainer.queue.scheduler import LOOK_EVERY_S
from accel_trainer.queue.store import JobGone, QueueStore


class Recorded(NamedTuple):
    """What became of the job; and its failures so far, where it is tried again."""

    ending: Outcome
    failures: FailureRecord | None = None

    @property
    def has_failed(self) -> bool:
        return self.ending.kind is OutcomeKind.FAILED and self.failures is None


def finish_claim(
    queue: QueueStore, retries: Retries, claimed: ClaimedJob, ending: Outcome, log: Path, limit: int
) -> Recorded:
    """Move a claimed job to where it belongs now. It is tried again `limit` times. Raises QueueUnusable."""
    failures: FailureRecord | None = None
    try:
        match ending.kind:
            case OutcomeKind.DONE:
                queue.finish(claimed, JobState.DONE)
            case OutcomeKind.INTERRUPTED:
                queue.release(claimed)
            case OutcomeKind.HELD:
                queue.hold(claimed)
            case OutcomeKind.FAILED:
                failures = _fail(queue, retries, claimed, ending, log, limit)
            case OutcomeKind.SUPERSEDED:
                _give_up(queue, claimed)
    except JobGone as error:
        ending = Outcome(OutcomeKind.SUPERSEDED, str(error))
    Requests(queue).forget(claimed.token)
    if failures is None and ending.kind in (OutcomeKind.DONE, OutcomeKind.FAILED):
        retries.forget(claimed.name)
    return Recorded(ending, failures)


def requeue(queue: QueueStore, retries: Retries, job: ClaimedJob) -> bool:
    """Put back a job whose owner is gone, or where somebody has asked for it to be put; whether nobody was faster."""
    ending = apply_control(queue, job, Outcome(OutcomeKind.INTERRUPTED))
    return finish_claim(queue, retries, job, ending, job.path, 0).ending.kind is not OutcomeKind.SUPERSEDED


def apply_control(queue: QueueStore, job: ClaimedJob, otherwise: Outcome) -> Outcome:
    """How a claim ends that its owner gives up: as somebody has asked."""
    if (request := Requests(queue).of(job.token)) is not None:
        return Outcome(request.cut.kind, request.cut.reason)
    return otherwise


def _fail(
    queue: QueueStore, retries: Retries, claimed: ClaimedJob, ending: Outcome, log: Path, limit: int
) -> FailureRecord | None:
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


def _give_up(queue: QueueStore, claimed: ClaimedJob) -> None:
    """The run folder has become another's. Where the claim is still ours, the job may be run when that is over."""
    if claimed.path.exists():
        queue.release(claimed)


class Reclaimer:
    """The abandoned jobs of one queue, as seen by one runner."""

    def __init__(self, queue: QueueStore, retries: Retries, *, with_stale: bool) -> None:
        """with_stale: also those of runners on other machines from which nothing was heard for long."""
        self._queue, self._retries, self._with_stale = queue, retries, with_stale
        self._observer = HeartbeatObserver(queue)
        self._looked = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._looked > LOOK_EVERY_S / 4

    def forget_dead(self) -> None:
        """Remove the signs of life of runners that are dead."""
        self._observer.remove_dead()

    async def put_back(self) -> AsyncIterator[ClaimedJob]:
        """Puts them back one by one, and gives those with which nobody was faster. Raises QueueUnusable."""
        running = self._queue.claims()
        silent = self._observer.silence_s(running)
        for job in running:
            has_expired = self._with_stale and is_stale(silent.get(job.path.name, 0.0))
            if not (has_expired or job.owner.is_dead()):
                continue
            for _ in ending_leftovers(job.token):
                await asyncio.sleep(POLL_S)
            if requeue(self._queue, self._retries, job):
                yield job
        self._looked = time.monotonic()
