"""One attempt at one job: launch a trainer, stay with it, judge how it ended."""

import signal
import time
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import FrameType
from typing import Protocol

from accel_trainer.config import Job
from accel_trainer.errors import UserError
from accel_trainer.queue.launcher import SHUTDOWN_S, Flags, Machine, plan_launch
from accel_trainer.queue.trainer import POLL_S, Trainer
from accel_trainer.runs import RunFolder, RunState, Status

LOG_END_BYTES = 64 * 1024


class Stop:
    """SIGINT, SIGTERM and SIGHUP: the first asks trainers to save and stop, the second ends them."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_urgent = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_urgent = self.signal is not None
        self.signal = self.signal or number


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
    """One try at one job: which file, under which name and token, and where its output goes."""

    job: Job
    file: Path
    token: str
    log: Path
    group: str | None = None
    submission: str = ""

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.job.run_path)

    @property
    def worker_args(self) -> list[str]:
        group = [f"--group={self.group}"] if self.group else []
        return [str(self.file), f"--name={self.job.name}", f"--submission={self.submission}", *group]


def run_attempt(attempt: Attempt, flags: Flags, machine: Machine, stop: Stop, watcher: AttemptWatcher) -> Ending:
    """Launch a trainer and stay with it until it and all its processes are gone."""
    try:
        attempt.run.create()
        launch = plan_launch(attempt.job, flags, machine, attempt.worker_args)
    except UserError as error:
        return Ending(EndingKind.FAILED, str(error), is_users_mistake=True)
    trainer = Trainer(launch, attempt.token, attempt.log)
    watcher.started(attempt.job.name, attempt.run, attempt.log)
    try:
        _wait(trainer, stop, watcher)
    finally:
        if trainer.exit_code is None:
            trainer.kill()
        trainer.clear_up()
    assert trainer.exit_code is not None
    ending = judge(
        attempt.run.read_status(),
        attempt.token,
        asked_to_stop=bool(stop),
        exit_code=trainer.exit_code,
        log=attempt.log,
    )
    rank_error = attempt.run.first_rank_error(attempt.token)
    if ending.kind is EndingKind.FAILED and not ending.is_users_mistake and rank_error is not None:
        return Ending(EndingKind.FAILED, rank_error)
    return ending


def _wait(trainer: Trainer, stop: Stop, watcher: AttemptWatcher) -> None:
    """Until the launcher has ended; when asked to stop, ask the trainer, and end it if it does not listen."""
    deadline: float | None = None
    while trainer.exit_code is None:
        if stop and deadline is None:
            deadline = time.monotonic() + SHUTDOWN_S
            watcher.stopping()
            trainer.ask_to_stop()
        if deadline is not None and (stop.is_urgent or time.monotonic() > deadline):
            trainer.kill()
        watcher.tick()
        time.sleep(POLL_S)
