"""How an attempt has ended: what is left of a trainer's words when it is gone, and what they mean for its job."""

import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, first_rank_error, write_status

LOG_END_BYTES = 64 * 1024
# A launcher that dies of these was told to end by somebody else than its runner; so was one with such last words.
STOPPED_BY = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
STOPPED_WITH = re.compile(r"KeyboardInterrupt|.*SignalException: Process \d+ got signal: \d+")


class OutcomeKind(Enum):
    DONE = auto()
    FAILED = auto()
    INTERRUPTED = auto()
    SUPERSEDED = auto()  # the job has become another's: nothing of this attempt counts


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, why if not well, and in which state its run was then; the batch size that would fit into
    memory, where that is known."""

    kind: OutcomeKind
    reason: str | None = None
    state: RunState | None = None
    fitting_batch_size: int | None = None

    @property
    def is_users_mistake(self) -> bool:
        return self.state is RunState.INVALID

    @property
    def may_be_retried(self) -> bool:
        """Whether it may go better another time. A loss that was not finite will be so again: runs are exact."""
        return self.kind is OutcomeKind.FAILED and self.state in (
            RunState.FAILED,
            RunState.STALLED,
            RunState.OUT_OF_MEMORY,
        )


@dataclass(frozen=True)
class StopReason:
    """Why a trainer was ended by its runner although the runner itself goes on; the state that its run is left in, and
    what becomes of the job."""

    reason: str
    state: RunState
    kind: OutcomeKind = OutcomeKind.FAILED


def outcome_of(
    status: Status | None, token: str, *, asked_to_stop: bool, exit_code: int, log: Path, cut: StopReason | None = None
) -> Outcome:
    """What a trainer's last word means for its job. A word of an earlier attempt does not count."""
    if status is None or status.token != token:
        return _without_last_word("before it said anything", asked_to_stop, exit_code, log, cut)
    match status.state:
        case RunState.FINISHED:
            return Outcome(OutcomeKind.DONE, state=status.state)
        case RunState.PREEMPTED:
            if cut is not None:
                return Outcome(cut.kind, cut.reason, cut.state)
            return _put_back(asked_to_stop)
        case RunState.INVALID | RunState.DIVERGED | RunState.FAILED | RunState.OUT_OF_MEMORY | RunState.STALLED:
            return Outcome(OutcomeKind.FAILED, status.error or "no reason given", status.state)
        case RunState.STARTING | RunState.TRAINING:
            where = f"in epoch {status.epoch}" if status.epoch else "before the first step"
            return _without_last_word(where, asked_to_stop, exit_code, log, cut)


def _without_last_word(where: str, asked_to_stop: bool, exit_code: int, log: Path, cut: StopReason | None) -> Outcome:
    if cut is not None:
        return Outcome(cut.kind, cut.reason, cut.state)
    told = last_error_line(log, exit_code)
    if asked_to_stop or exit_code in STOPPED_BY or STOPPED_WITH.fullmatch(told):
        return _put_back(asked_to_stop)
    return Outcome(OutcomeKind.FAILED, f"the trainer was ended {where}: {told}", RunState.FAILED)


def _put_back(asked_to_stop: bool) -> Outcome:
    return Outcome(OutcomeKind.INTERRUPTED, None if asked_to_stop else "told to by somebody else", RunState.PREEMPTED)


def outcome_of_exit_code(exit_code: int, log: Path, *, asked_to_stop: bool, cut: StopReason | None) -> Outcome:
    """What is known on a machine that is not the first of several: the run's status is of the first one's attempt."""
    if exit_code == 0 and cut is None and not asked_to_stop:
        return Outcome(OutcomeKind.DONE, state=RunState.FINISHED)
    return _without_last_word("here", asked_to_stop, exit_code, log, cut)


def last_error_line(log: Path, exit_code: int) -> str:
    """The last line of a log that says something, or else the exit code."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_END_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    told = errors[-1:] or [line for line in lines if line and not set(line) <= set("=-─ ")][-1:]
    return told[0].removeprefix("error: ") if told else f"exit code {exit_code}"


def with_root_cause(ending: Outcome, said: Status | None, run: RunFolder, token: str) -> Outcome:
    """When several ranks failed, the reason is that of the first: the others fail because it is gone."""
    first = first_rank_error(run, token)
    if first is None or ending.kind is not OutcomeKind.FAILED or ending.is_users_mistake:
        return ending
    rank_0_failed_at = said.failed_at if said is not None and said.token == token else None
    if rank_0_failed_at is not None and rank_0_failed_at <= first.time:
        return ending
    return Outcome(OutcomeKind.FAILED, first.error, first.state, first.fitting_batch_size)


def with_oom(ending: Outcome, num_killed: int) -> Outcome:
    """What a trainer died of that had no time for a last word, if the kernel has killed for memory meanwhile."""
    if ending.state is not RunState.FAILED or num_killed == 0:
        return ending
    reason = f"{ending.reason} (meanwhile the system ran out of memory and has killed {num_killed} of its processes)"
    return Outcome(OutcomeKind.FAILED, reason, RunState.OUT_OF_MEMORY)


def record(ending: Outcome, said: Status | None, run: RunFolder, token: str) -> None:
    """Complete the status of a run whose first rank was ended before it could say why it failed, or does not know."""
    if ending.kind is not OutcomeKind.FAILED or ending.state is None or said is None or said.token != token:
        return
    if (said.state, said.error) == (ending.state, ending.reason):
        return
    changes: dict[str, Any] = {"state": ending.state, "error": ending.reason, "eta_s": None}
    if ending.fitting_batch_size is not None:
        changes["fitting_batch_size"] = ending.fitting_batch_size
    with suppress(OSError):  # the queue has the reason as well
        write_status(run, said.model_copy(update=changes))
