"""What happens in an attempt as lines of text, and what such lines have in common."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, assert_never

from accel_trainer.core.text import duration, one_line, printable
from accel_trainer.launch.attempt_events import (
    AttemptEvent,
    AttemptFinished,
    AttemptStarted,
    AttemptStopping,
    AttemptTerminating,
    Tick,
)
from accel_trainer.launch.command import SHUTDOWN_S
from accel_trainer.launch.outcome import Outcome, OutcomeKind

Given = TypeVar("Given", bound=Any)


def harmless(event: Given) -> Given:
    """The same event with names and reasons that others have given written out: in a line each, but for `reason`, whose
    further lines are indented, so that none passes for a line of ours."""
    texts = {field.name: getattr(event, field.name) for field in fields(event)}
    changes: dict[str, Any] = {
        name: text if name == "reason" else one_line(text) for name, text in texts.items() if type(text) is str
    }
    return replace(event, **changes)


def indented(reason: str | None) -> str:
    """A reason, whose further lines are indented."""
    return printable(reason or "").replace("\n", "\n  ")


def line_of_attempt(event: AttemptEvent) -> str:
    """What happens in an attempt, in words; harmless already."""
    match event:
        case AttemptStarted(name=name, run=run, log=log, is_training=is_training):
            what = "training" if is_training else "evaluating"
            return f"\n{name}: {what} in {one_line(run.path)} (all output: {one_line(log)})"
        case AttemptStopping():
            longest = duration(SHUTDOWN_S)
            return f"stopping: the step is finished and the state saved, {longest} at most; once more stops at once"
        case AttemptTerminating(name=name, reason=reason):
            return f"{name}: {indented(reason)}"
        case AttemptFinished(name=name, outcome=outcome, log=log):
            return f"{name}: {outcome_line(name, outcome, log)}"
        case Tick():
            return ""
        case _:
            assert_never(event)


def outcome_line(name: str, outcome: Outcome, log: Path) -> str:
    """How an attempt has ended, in words."""
    reason = indented(outcome.reason)
    why = "" if outcome.reason is None else f" ({reason})"
    match outcome.kind:
        case OutcomeKind.DONE:
            return "done"
        case OutcomeKind.INTERRUPTED:
            return f"stopped{why}; it resumes where it was when it is run again"
        case OutcomeKind.SUPERSEDED:
            return f"superseded{why}; what this trainer did does not count"
        case OutcomeKind.FOLDER_IN_USE:
            return f"not begun: {reason}"
        case OutcomeKind.CANCELED:
            return f"{reason}; `accel-train retry {name}` lets it resume where it was"
        case OutcomeKind.FAILED:
            return f"failed: {reason}\n  log: {one_line(log)}"
        case _:
            assert_never(outcome.kind)
