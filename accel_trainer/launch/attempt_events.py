"""What happens in an attempt, as values: `run_attempt` emits them, and a terminal prints them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.launch.outcome import Outcome
from accel_trainer.run.folder import RunFolder


@dataclass(frozen=True)
class AttemptStarted:
    """The trainer of a job was started, or what evaluates for it; all its output goes to `log`, and its statuses have
    `token`."""

    name: str
    run: RunFolder
    log: Path
    token: str
    is_training: bool = True


@dataclass(frozen=True)
class Tick:
    """A moment has passed: what is shown of running trainers may be brought up to date."""


@dataclass(frozen=True)
class AttemptStopping:
    """The trainer of a job was asked to save and stop, because its launcher is to stop."""

    name: str


@dataclass(frozen=True)
class AttemptTerminating:
    """The trainer of a job is ended for this reason, although its launcher goes on."""

    name: str
    reason: str


@dataclass(frozen=True)
class AttemptFinished:
    """An attempt at a job is over."""

    name: str
    outcome: Outcome
    log: Path


AttemptEvent = AttemptStarted | Tick | AttemptStopping | AttemptTerminating | AttemptFinished
EmitAttempt = Callable[[AttemptEvent], None]
