"""What comes of the attempts of a runner: each job goes where it belongs, and events say so."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.events import ClaimFinished, Emit, RetryScheduled
from accel_trainer.queue.finish import AttemptResult, finish_claim
from accel_trainer.queue.layout import ClaimedJob
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs

# Is given the name of a job, how an attempt at it has ended, and after how many seconds.
NoteOutcome = Callable[[str, Outcome, float], None]


@dataclass(frozen=True)
class FinishedAttempt:
    """A claimed job whose attempt is over, and which is to be moved to where it belongs."""

    claimed: ClaimedJob
    result: AttemptResult
    began: float
    ended: float = field(default_factory=time.monotonic)


class Results:
    """Moves jobs whose attempts are over. One that cannot be moved is kept in mind, and tried again.

    num_failed: how many jobs have failed for good.
    """

    def __init__(
        self, queue: QueueStore, retries: Retries, stuck: StuckJobs, emit: Emit, note_outcome: NoteOutcome
    ) -> None:
        self._queue, self._retries, self._stuck = queue, retries, stuck
        self._emit, self._note_outcome = emit, note_outcome
        self._left: list[FinishedAttempt] = []
        self.num_failed = 0

    def add(self, over: FinishedAttempt) -> None:
        """Move one job. Raises QueueUnusable where no job could be moved."""
        claimed, result = over.claimed, over.result
        try:
            finished = finish_claim(self._queue, self._retries, claimed, result)
        except Exception as error:  # whatever it is, it is of this job alone, or else the queue cannot be used
            self._left.append(over)
            self._stuck.add(claimed, error)
            return
        self._stuck.remove(claimed)
        self.num_failed += finished.has_failed
        self._emit(ClaimFinished(claimed.name, finished, result.log))
        if (failures := finished.failures) is not None:
            backoff_s = self._retries.backoff_s(failures)
            is_failure = finished.outcome.kind is OutcomeKind.FAILED and not finished.outcome.is_machines_failure
            number = failures.number if is_failure else None
            self._emit(RetryScheduled(claimed.name, finished.outcome.kind, backoff_s, number, result.retries))
        self._note_outcome(claimed.name, finished.outcome, over.ended - over.began)

    def try_again(self, *, at_once: bool = False) -> None:
        """Try once more what could not be moved, when it is time for that or `at_once`. Raises QueueUnusable."""
        due = [over for over in self._left if at_once or over.claimed not in self._stuck]
        self._left = [over for over in self._left if over not in due]
        for over in due:
            self.add(over)
