"""One attempt at a job: take the run folder, launch, supervise, and judge how it ended."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.processes import StopRequest, oom_kill_count
from accel_trainer.core.text import duration
from accel_trainer.launch.command import SHUTDOWN_S, Launch, LaunchOptions, plan_launch
from accel_trainer.launch.events import AttemptStarted, AttemptStopping, AttemptTerminating, EmitAttempt, Tick
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.outcome import (
    Outcome,
    OutcomeKind,
    StopReason,
    outcome_of,
    outcome_of_exit_code,
    record,
    with_oom,
    with_root_cause,
)
from accel_trainer.launch.process_group import POLL_S, ProcessGroup, end_leftovers
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockLost, RunLock, acquire, never
from accel_trainer.run.status import RunState, read_status

LISTEN_EVERY_S = 1.0


class StatusMonitor:
    """How long a run has been silent, by our own clock: whenever its trainer has done something it says so in
    status.json, once a second at most."""

    def __init__(self, run: RunFolder) -> None:
        self._path = run.status_file
        self._heard = self._looked = time.monotonic()
        self._last = self._written_at()

    def silence_s(self) -> float:
        now = time.monotonic()
        if now - self._looked >= LISTEN_EVERY_S:
            self._looked = now
            if (written_at := self._written_at()) != self._last:
                self._last, self._heard = written_at, now
        return now - self._heard

    def _written_at(self) -> int | None:
        with suppress(OSError):
            return self._path.stat().st_mtime_ns
        return None


# Called again and again: why to end the trainer of a job, or None.
StopCheck = Callable[[], StopReason | None]


def never_stop() -> StopReason | None:
    """Nobody asks for a job to be stopped."""
    return None


async def supervise(
    trainer: ProcessGroup,
    job: Job,
    run: RunFolder,
    ownership: RunLock | None,
    stop: StopRequest,
    emit: EmitAttempt,
    stop_check: StopCheck = never_stop,
) -> StopReason | None:
    """Until the launcher has ended. When asked to stop, ask the trainer, and end it if it does not listen.

    Gives why the trainer was ended, if it was for another reason. Raises OwnershipLost.
    """
    heartbeat, began = StatusMonitor(run), time.monotonic()
    deadline: float | None = None
    cut: StopReason | None = None
    while trainer.exit_code is None:
        if deadline is None and not stop:
            cut = stop_check() or _why_to_end(job, time.monotonic() - began, heartbeat)
        if deadline is None and (stop or cut is not None):
            deadline = time.monotonic() + SHUTDOWN_S
            await _begin_to_end(trainer, job.name, cut, emit)
        if deadline is not None and (stop.is_urgent or time.monotonic() > deadline):
            trainer.kill()
        if ownership is not None:
            ownership.heartbeat()
        emit(Tick())
        await asyncio.sleep(POLL_S)
    return cut


async def _begin_to_end(trainer: ProcessGroup, name: str, cut: StopReason | None, emit: EmitAttempt) -> None:
    """A trainer that works may save; one that does nothing any more would not listen."""
    if cut is None:
        emit(AttemptStopping(name))
    else:
        emit(AttemptTerminating(name, cut.reason))
    if cut is not None and cut.state is RunState.STALLED:
        await trainer.dump_stacks()
        trainer.kill()
    else:
        trainer.ask_to_stop()


def _why_to_end(job: Job, seconds: float, heartbeat: StatusMonitor) -> StopReason | None:
    """Whether a trainer has had its time, or has been silent for too long."""
    if job.time_limit is not None and seconds > 60 * job.time_limit:
        reason = f"time_limit: {duration(60 * job.time_limit)} are over; `accel-train retry {job.name}` lets it go on"
        return StopReason(reason, RunState.PREEMPTED)
    if heartbeat.silence_s() > 60 * job.stall_timeout:
        reason = f"stalled: no step for {duration(60 * job.stall_timeout)} (stall_timeout)"
        return StopReason(f"{reason}; what every process was doing is in the log", RunState.STALLED)
    return None


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Attempt:
    """One try at one job: which file, under which name and token, and where its output goes.

    `starting_params` is the path that the name in the job's stands for; `claim` is whose the job is.
    """

    job: Job
    file: Path
    token: str
    log: Path
    group: str | None = None
    submission: str = ""
    starting_params: Path | None = None
    claim: Owner | None = None

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.job.run_path)

    @property
    def worker_args(self) -> list[str]:
        group = [f"--group={self.group}"] if self.group else []
        start = [f"--starting-params={self.starting_params}"] if self.starting_params is not None else []
        return [str(self.file), f"--name={self.job.name}", f"--submission={self.submission}", *group, *start]


# Starts a trainer, given its launch, token and log. Raises OSError.
Start = Callable[[Launch, str, Path], Awaitable[ProcessGroup]]


async def spawn(launch: Launch, token: str, log: Path) -> ProcessGroup:
    return ProcessGroup(launch, token, log)


async def run_attempt(
    attempt: Attempt,
    options: LaunchOptions,
    machine: Machine,
    stop: StopRequest,
    emit: EmitAttempt,
    stop_check: StopCheck = never_stop,
    start: Start = spawn,
) -> Outcome:
    """Launch a trainer and stay with it until it, all its processes and their temporary files are gone. Nobody else
    may train in its run folder meanwhile.

    Where somebody else has told the trainer or its launcher to stop, this machine is wanted: `stop` then says so too.
    """
    try:
        attempt.run.create()
        launch = plan_launch(attempt.job, options, machine, attempt.worker_args)
        ownership = _take(attempt) if launch.machine_rank == 0 else None
    except UserError as error:
        return Outcome(OutcomeKind.FAILED, str(error), RunState.INVALID)
    try:
        return await _run(attempt, launch, ownership, stop, emit, stop_check, start)
    finally:
        if ownership is not None:
            attempt.run.remove_leftovers()
            ownership.release()


def _take(attempt: Attempt) -> RunLock:
    """Refuse a run folder in which another process trains; see to it that nothing of a dead one is left."""

    def say(line: str) -> None:
        with attempt.log.open("a") as log:
            log.write(f"{line}\n")

    owner = Owner(this_host(), attempt.token)
    follows = never if attempt.claim is None else attempt.claim.has_started
    return acquire(attempt.run, owner, end_leftovers=end_leftovers, say=say, follows=follows)


async def _run(
    attempt: Attempt,
    launch: Launch,
    ownership: RunLock | None,
    stop: StopRequest,
    emit: EmitAttempt,
    stop_check: StopCheck,
    start: Start,
) -> Outcome:
    num_killed = oom_kill_count()
    try:
        trainer = await start(launch, attempt.token, attempt.log)
    except OSError as error:
        return Outcome(OutcomeKind.FAILED, f"the trainer cannot be started: {error}", RunState.FAILED)
    emit(AttemptStarted(attempt.job.name, attempt.run, attempt.log))
    cut: StopReason | None = None
    try:
        cut = await supervise(trainer, attempt.job, attempt.run, ownership, stop, emit, stop_check)
    except LockLost as error:
        trainer.kill()  # what it would still save is another's
        return Outcome(OutcomeKind.SUPERSEDED, str(error))
    finally:
        await trainer.stop(lambda: stop.is_urgent)
    num_killed = oom_kill_count() - num_killed
    ending = _judge(attempt, launch, trainer, cut, asked_to_stop=bool(stop), num_killed=num_killed)
    if ending.kind is OutcomeKind.INTERRUPTED and cut is None and not stop and trainer.exit_code != -signal.SIGKILL:
        stop.note(signal.SIGTERM)
    return ending


def _judge(
    attempt: Attempt,
    launch: Launch,
    trainer: ProcessGroup,
    cut: StopReason | None,
    *,
    asked_to_stop: bool,
    num_killed: int,
) -> Outcome:
    code, log = trainer.exit_code, attempt.log
    assert code is not None
    if launch.machine_rank > 0:
        ending = outcome_of_exit_code(code, log, asked_to_stop=asked_to_stop, cut=cut)
        return with_oom(ending, num_killed)
    said = read_status(attempt.run)
    ending = outcome_of(said, attempt.token, asked_to_stop=asked_to_stop, exit_code=code, log=log, cut=cut)
    ending = with_oom(with_root_cause(ending, said, attempt.run, attempt.token), num_killed)
    record(ending, said, attempt.run, attempt.token)
    return ending
