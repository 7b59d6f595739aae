"""One attempt at one job: launch a trainer, stay with it, judge how it ended."""

import signal
import time
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from accel_trainer import processes
from accel_trainer.config import Job
from accel_trainer.errors import UserError
from accel_trainer.processes import Owner, StopRequest, this_host
from accel_trainer.queue.launcher import SHUTDOWN_S, Flags, Machine, plan_launch
from accel_trainer.queue.trainer import POLL_S, Trainer, end_leftovers
from accel_trainer.runs import TOKEN_VARIABLE, RunFolder, RunState, Status

LOG_END_BYTES = 64 * 1024
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Of another machine's trainer only its status is known, which it writes every second but while it validates.
SILENT_S = 600


class AttemptWatcher(Protocol):
    """Who is told how an attempt goes; the words for people are its own."""

    def started(self, name: str, run: RunFolder, log: Path) -> None: ...

    def tick(self) -> None:
        """A moment has passed while a trainer is running."""

    def stopping(self) -> None: ...


class EndingKind(Enum):
    DONE = auto()
    FAILED = auto()
    BACK_TO_PENDING = auto()


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, and why if not well."""

    kind: EndingKind
    reason: str | None = None
    is_users_mistake: bool = False


def judge(status: Status | None, token: str, *, asked_to_stop: bool, exit_code: int, log: Path) -> Ending:
    """What a trainer's last word means for its job. A word of an earlier attempt does not count."""
    if status is None or status.token != token:
        if asked_to_stop:
            return Ending(EndingKind.BACK_TO_PENDING)
        return Ending(EndingKind.FAILED, f"the trainer ended before it said anything: {last_words(log, exit_code)}")
    match status.state:
        case RunState.FINISHED:
            return Ending(EndingKind.DONE)
        case RunState.PREEMPTED:
            return Ending(EndingKind.BACK_TO_PENDING)
        case RunState.INVALID:
            return Ending(EndingKind.FAILED, status.error, is_users_mistake=True)
        case RunState.DIVERGED | RunState.FAILED:
            return Ending(EndingKind.FAILED, status.error or "no reason given")
        case RunState.STARTING | RunState.TRAINING:
            if asked_to_stop:
                return Ending(EndingKind.BACK_TO_PENDING)
            where = f"in epoch {status.epoch}" if status.epoch else "before the first step"
            return Ending(EndingKind.FAILED, f"the trainer was ended {where}: {last_words(log, exit_code)}")


def last_words(log: Path, exit_code: int) -> str:
    """The last line of a log that says something, or else the exit code."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_END_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    told = errors[-1:] or [line for line in lines if line and not set(line) <= set("=-─ ")][-1:]
    return told[0].removeprefix("error: ") if told else f"exit code {exit_code}"


@dataclass(frozen=True)
class Attempt:
    """One try at one job: which file, under which name and token, and where its output goes.

    `starting_params` is the path that the name in the job's stands for.
    """

    job: Job
    file: Path
    token: str
    log: Path
    group: str | None = None
    submission: str = ""
    starting_params: Path | None = None

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.job.run_path)

    @property
    def worker_args(self) -> list[str]:
        group = [f"--group={self.group}"] if self.group else []
        start = [f"--starting-params={self.starting_params}"] if self.starting_params is not None else []
        return [str(self.file), f"--name={self.job.name}", f"--submission={self.submission}", *group, *start]


def submission_of(file: Path) -> str:
    """What tells this submission of a job from the next: a file keeps it when it is moved."""
    about = file.stat()
    return f"{about.st_mtime_ns}-{about.st_size}"


def run_attempt(attempt: Attempt, flags: Flags, machine: Machine, stop: StopRequest, watcher: AttemptWatcher) -> Ending:
    """Launch a trainer and stay with it until it and all its processes are gone."""
    try:
        attempt.run.create()
        launch = plan_launch(attempt.job, flags, machine, attempt.worker_args)
        _take_over(attempt)
    except UserError as error:
        return Ending(EndingKind.FAILED, str(error), is_users_mistake=True)
    trainer = Trainer(launch, attempt.token, attempt.log)
    watcher.started(attempt.job.name, attempt.run, attempt.log)
    try:
        _wait(trainer, stop, watcher)
    finally:
        trainer.end()
    assert trainer.exit_code is not None
    if launch.machine_rank > 0:  # the run's status is that of the main machine's attempt
        return _judge_by_exit_code(trainer.exit_code, attempt.log, asked_to_stop=bool(stop))
    said = attempt.run.read_status()
    ending = judge(said, attempt.token, asked_to_stop=bool(stop), exit_code=trainer.exit_code, log=attempt.log)
    return _with_first_cause(ending, said, attempt)


def _take_over(attempt: Attempt) -> None:
    """Refuse a run folder in which another process trains; see to it that nothing of a dead one is left."""
    said = attempt.run.read_status()
    if said is None or not said.token or said.token == attempt.token:
        return
    owner = Owner(said.host, said.token)
    if owner.is_dead():
        end_leftovers(owner.token)
    elif said.state in (RunState.STARTING, RunState.TRAINING):
        is_here = owner.host == this_host()
        trains = processes.with_variable(TOKEN_VARIABLE, owner.token) if is_here else _is_fresh(said)
        if trains:
            raise UserError(f"model_dir: another process is training in {attempt.run.path} (on {said.host})")


def _is_fresh(status: Status) -> bool:
    return time.time() - status.updated < SILENT_S


def _judge_by_exit_code(exit_code: int, log: Path, *, asked_to_stop: bool) -> Ending:
    if asked_to_stop:
        return Ending(EndingKind.BACK_TO_PENDING)
    if exit_code == 0:
        return Ending(EndingKind.DONE)
    return Ending(EndingKind.FAILED, last_words(log, exit_code))


def _with_first_cause(ending: Ending, said: Status | None, attempt: Attempt) -> Ending:
    """When several ranks failed, the reason is that of the first: the others fail because it is gone."""
    first = attempt.run.first_rank_error(attempt.token)
    if first is None or ending.kind is not EndingKind.FAILED or ending.is_users_mistake:
        return ending
    rank_0_failed_at = said.failed_at if said is not None and said.token == attempt.token else None
    if rank_0_failed_at is not None and rank_0_failed_at <= first[0]:
        return ending
    return Ending(EndingKind.FAILED, first[1])


def _wait(trainer: Trainer, stop: StopRequest, watcher: AttemptWatcher) -> None:
    """Until the launcher has ended; when asked to stop, ask the trainer, and end it if it does not listen."""
    deadline: float | None = None
    while trainer.exit_code is None:
        if stop and deadline is None:
            deadline = time.monotonic() + SHUTDOWN_S
            trainer.ask_to_stop()
            watcher.stopping()
        if deadline is not None and (stop.is_urgent or time.monotonic() > deadline):
            trainer.kill()
        watcher.tick()
        time.sleep(POLL_S)
