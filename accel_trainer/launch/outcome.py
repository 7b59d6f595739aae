"""The outcome of an attempt: what the last status, the log and the exit code of a trainer mean for its job."""

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import open_regular
from accel_trainer.core.machine_errors import why_of_machine, why_of_machine_in
from accel_trainer.core.oom_kills import OomKills
from accel_trainer.core.outage import UnsuitableFile
from accel_trainer.core.processes import signal_name
from accel_trainer.launch.protocol import ERROR_PREFIX
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, first_rank_error, read_status, write_status

LOG_END_BYTES = 64 * 1024
# A launcher that dies of these was sent a signal by somebody else than its runner; so was one with such a last line.
STOPPED_BY = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
# As subprocess, whose error the launcher prints, and torchrun have it.
DIED_OF_BUS_ERROR = re.compile(r"died with <Signals\.SIGBUS: \d+>|Signal \d+ \(SIGBUS\) received by PID")
# The same; and what a process pool says of a worker.
DIED_OF_SIGKILL = re.compile(
    r"died with <Signals\.SIGKILL: \d+>|Signal \d+ \(SIGKILL\) received by PID|killed by signal: (?:Killed|9\b)"
)
SHELLS = 128  # what a shell adds to the number of a signal
KILLED = "one of its processes was killed: SIGKILL, by a person or a program that guards memory or time"
NOT_READABLE = (
    "a file that is mapped into memory, such as a table of an hf: data set, could not be read (SIGBUS): "
    "it was cut short, or its disk is away"
)
STOPPED_WITH = re.compile(r"KeyboardInterrupt|.*SignalException: Process \d+ got signal: \d+")


class OutcomeKind(Enum):
    """What becomes of the job of an attempt."""

    DONE = auto()
    FAILED = auto()
    CANCELED = auto()  # somebody wanted it so: no failure
    INTERRUPTED = auto()
    SUPERSEDED = auto()  # the job has become another's: nothing of this attempt counts
    FOLDER_IN_USE = auto()  # the run folder is another process's for now: nothing was begun


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, why if not well, and in which state its run was then; the batch size that would fit into
    memory, where that is known; after how many seconds a run folder may be free that is in use."""

    kind: OutcomeKind
    reason: str | None = None
    state: RunState | None = None
    fitting_batch_size: int | None = None
    wait_s: float = 0.0

    @property
    def is_users_mistake(self) -> bool:
        """Whether the job or the command has a mistake that the user can fix."""
        return self.state is RunState.INVALID

    @property
    def is_machines_failure(self) -> bool:
        """Whether the machine failed, or its disk, and the job is to be tried again whatever its `retries`."""
        return self.kind is OutcomeKind.FAILED and self.state is RunState.MACHINE_FAILED

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
    """Why a trainer is ended by its runner although the runner itself goes on; the state that its run is left in, and
    what becomes of the job."""

    reason: str
    state: RunState
    kind: OutcomeKind = OutcomeKind.FAILED

    @property
    def outcome(self) -> Outcome:
        """The outcome of an attempt that was ended for this reason."""
        return Outcome(self.kind, self.reason, self.state)


@dataclass(frozen=True)
class TrainerExit:
    """How a launcher has ended: its exit code and log; whether its own launcher was asked to stop; and for which other
    reason it was ended, if so."""

    exit_code: int
    log: Path
    asked_to_stop: bool = False
    reason: StopReason | None = None


def outcome_of(status: Status | None, token: str, ended: TrainerExit) -> Outcome:
    """What the last status of a trainer means for its job. A status of an earlier attempt does not count."""
    if status is None or status.token != token:
        return _without_last_status("before it said anything", ended)
    match status.state:
        case RunState.FINISHED:
            return Outcome(OutcomeKind.DONE, state=status.state)
        case RunState.PREEMPTED:
            return _interrupted(ended) if ended.reason is None else ended.reason.outcome
        case (
            RunState.INVALID
            | RunState.DIVERGED
            | RunState.FAILED
            | RunState.OUT_OF_MEMORY
            | RunState.STALLED
            | RunState.MACHINE_FAILED
        ):
            return Outcome(OutcomeKind.FAILED, status.error or "no reason given", status.state)
        case RunState.STARTING | RunState.TRAINING | RunState.MEASURING | RunState.PRETRAINED:
            where = f"in epoch {status.epoch}" if status.epoch else "before the first step"
            where = f"after {status.images:,} of {status.num_images:,} images" if status.num_images else where
            return _without_last_status(where, ended)


def outcome_of_exit_code(ended: TrainerExit) -> Outcome:
    """What is known on a machine that is not the first of several: the run's status is of the first one's attempt."""
    if ended.exit_code == 0 and ended.reason is None and not ended.asked_to_stop:
        return Outcome(OutcomeKind.DONE, state=RunState.FINISHED)
    return _without_last_status("here", ended)


def _without_last_status(where: str, ended: TrainerExit) -> Outcome:
    if ended.reason is not None:
        return ended.reason.outcome
    last_line = last_error_line(ended.log, ended.exit_code)
    if _died_of_bus_error(ended):
        reason = f"the trainer was ended {where}: {NOT_READABLE}"
        return Outcome(OutcomeKind.FAILED, reason, RunState.MACHINE_FAILED)
    if ended.asked_to_stop or ended.exit_code in STOPPED_BY or STOPPED_WITH.fullmatch(last_line):
        return _interrupted(ended)
    state = RunState.FAILED if why_of_machine_in(last_line) is None else RunState.MACHINE_FAILED
    return Outcome(OutcomeKind.FAILED, f"the trainer was ended {where}: {last_line}", state)


def _died_of_bus_error(ended: TrainerExit) -> bool:
    """Whether a process of the trainer was sent SIGBUS, as by a page of a mapped file that the disk cannot give."""
    return ended.exit_code == -signal.SIGBUS or DIED_OF_BUS_ERROR.search(_log_end(ended.log)) is not None


def _interrupted(ended: TrainerExit) -> Outcome:
    reason = None if ended.asked_to_stop else "told to by somebody else"
    return Outcome(OutcomeKind.INTERRUPTED, reason, RunState.PREEMPTED)


def _log_end(log: Path) -> str:
    with suppress(UnsuitableFile), os.fdopen(open_regular(log), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_END_BYTES))
        return file.read().decode(errors="replace")
    return ""


def last_error_line(log: Path, exit_code: int) -> str:
    """The last error in a log, or else the signal that has ended its process, or else its last line that is not empty,
    or else the exit code."""
    lines = [line.strip() for line in _log_end(log).splitlines()]
    if errors := [line for line in lines if line.startswith(ERROR_PREFIX)]:
        return errors[-1].removeprefix(ERROR_PREFIX)
    last = [line for line in lines if line and not set(line) <= set("=-─ ")][-1:]
    if exit_code >= 0:
        return last[0] if last else f"exit code {exit_code}"
    return " after it printed ".join([f"killed by {signal_name(-exit_code)}", *map(repr, last)])


def with_root_cause(outcome: Outcome, status: Status | None, run: RunFolder, token: str) -> Outcome:
    """When several ranks failed, the reason is that of the first: the others fail because it is gone."""
    first = first_rank_error(run, token)
    if first is None or outcome.kind is not OutcomeKind.FAILED or outcome.is_users_mistake:
        return outcome
    rank_0_failed_at = status.failed_at if status is not None and status.token == token else None
    if rank_0_failed_at is not None and rank_0_failed_at <= first.time:
        return outcome
    if first.state is RunState.PREEMPTED:
        return Outcome(OutcomeKind.INTERRUPTED, first.error, first.state)
    return Outcome(OutcomeKind.FAILED, first.error, first.state, first.fitting_batch_size)


def with_oom(outcome: Outcome, ended: TrainerExit, killed: OomKills) -> Outcome:
    """The outcome of a trainer of which a process was killed, with the reason: for memory, if the kernel has killed
    something for memory meanwhile.

    killed: what it has killed since the trainer was started. That may have been another program, or another job's in
    the same control group: only where a process of this trainer was killed does it count.
    """
    if outcome.state is not RunState.FAILED or not _was_killed(outcome, ended):
        return outcome
    count = max(killed.machine, killed.own)
    if count > 0:
        reason = f"{outcome.reason} (meanwhile the system ran out of memory and has killed {count} of its processes)"
        return Outcome(OutcomeKind.FAILED, reason, RunState.OUT_OF_MEMORY)
    return Outcome(OutcomeKind.FAILED, f"{outcome.reason} ({KILLED})", outcome.state)


def _was_killed(outcome: Outcome, ended: TrainerExit) -> bool:
    """Whether a process of the trainer was sent SIGKILL."""
    if ended.exit_code in (-signal.SIGKILL, SHELLS + signal.SIGKILL):
        return True
    return any(DIED_OF_SIGKILL.search(text) for text in (outcome.reason or "", _log_end(ended.log)))


def state_of_mistake(error: UserError) -> RunState:
    """The state in which a run is for what may be a mistake: where the system has refused something that is the
    machine's, the job has none."""
    return RunState.INVALID if why_of_machine(error) is None else RunState.MACHINE_FAILED


def with_disk(outcome: Outcome, run: RunFolder) -> Outcome:
    """The outcome of a trainer that could not say why it failed, if nothing can be written in its run folder."""
    if outcome.kind is not OutcomeKind.FAILED or outcome.state is not RunState.FAILED:
        return outcome
    try:
        run.create(tries_to_write=True)
    except UserError as error:
        if state_of_mistake(error) is RunState.MACHINE_FAILED:
            return Outcome(OutcomeKind.FAILED, f"{outcome.reason} ({error})", RunState.MACHINE_FAILED)
    return outcome


def record(outcome: Outcome, run: RunFolder, token: str) -> None:
    """Complete the status of a run whose first rank was ended before it could say why it failed, or does not know."""
    if outcome.kind is not OutcomeKind.FAILED or outcome.state is None:
        return
    status = read_status(run)  # of an earlier attempt, where this one did not get as far as to make the run its own
    if status is None or status.token != token:
        return
    if (status.state, status.error) == (outcome.state, outcome.reason):
        return
    changes: dict[str, Any] = {"state": outcome.state, "error": outcome.reason, "eta_s": None}
    if outcome.fitting_batch_size is not None:
        changes["fitting_batch_size"] = outcome.fitting_batch_size
    with suppress(OSError):  # the queue has the reason as well
        write_status(run, status.model_copy(update=changes))
