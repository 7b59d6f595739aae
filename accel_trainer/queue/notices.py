"""What a person who is away is told of a queue, as facts."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from accel_trainer.core.lease import this_host
from accel_trainer.core.text import one_line
from accel_trainer.launch.outcome import OutcomeKind
from accel_trainer.queue.events import ClaimFinished, Event, JobRejected, SlurmJobOver
from accel_trainer.queue.layout import JobState

LONGEST_REASON = 2000


@dataclass(frozen=True)
class Notice:
    """One thing that has happened.

    event: `done`, `failed`, `canceled`, or `empty`, where nothing is left in the queue that could be run. job, reason:
    None where there is none. log: of the job's attempt. time: in seconds since 1970.
    """

    event: str
    queue: str
    job: str | None = None
    reason: str | None = None
    log: str | None = None
    host: str = field(default_factory=this_host)
    time: float = field(default_factory=time.time)

    @property
    def text(self) -> str:
        """One line for people."""
        if self.job is None:
            return f"nothing is left to run in {self.queue} on {self.host}{_after(self.reason)}"
        return f"{self.job}: {self.event}{_after(self.reason)}"

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, for programs; `text` is what Slack and others show of a message."""
        return {**asdict(self), "text": self.text}


def _after(reason: str | None) -> str:
    return "" if reason is None else f": {reason}"


def notice_of(event: Event, queue: str) -> Notice | None:
    """What there is to tell of an event; None of most."""
    match event:
        case ClaimFinished(name=name, finished=finished, log=log):
            if finished.state is JobState.DONE:
                return Notice("done", queue, one_line(name), log=str(log))
            if finished.state is JobState.FAILED:
                is_canceled = finished.outcome.kind is OutcomeKind.CANCELED
                reason = _short(finished.outcome.reason)
                return Notice("canceled" if is_canceled else "failed", queue, one_line(name), reason, str(log))
        case JobRejected(job=job, reason=reason):
            return Notice("failed", queue, one_line(job.name), _short(reason))
        case SlurmJobOver(name=name, state=state, reason=reason) if state in (JobState.DONE, JobState.FAILED):
            return Notice(str(state), queue, one_line(name), _short(reason))
    return None


def _short(reason: str | None) -> str | None:
    return None if reason is None else one_line(reason.strip().partition("\n")[0])[:LONGEST_REASON]
