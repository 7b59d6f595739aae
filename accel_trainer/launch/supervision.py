"""Supervision of a trainer while it runs: time limit, stall, requests to stop."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.config import QueueJob
from accel_trainer.core.disk_calls import watched
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.text import duration
from accel_trainer.launch.attempt_events import AttemptStopping, AttemptTerminating, EmitAttempt, Tick
from accel_trainer.launch.command import SHUTDOWN_S, Launch
from accel_trainer.launch.outcome import StopReason
from accel_trainer.launch.process_group import POLL_S, ProcessGroup
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import RunLock
from accel_trainer.run.status import RunState

STATUS_EVERY_S = 1.0
# Called again and again: why to end the trainer of a job, or None.
StopCheck = Callable[[], StopReason | None]
# Starts a trainer, given its launch, token and log. Raises OSError.
Start = Callable[[Launch, str, Path], Awaitable[ProcessGroup]]


def never_stop() -> StopReason | None:
    """Nobody asks for a job to be stopped."""
    return None


async def spawn(launch: Launch, token: str, log: Path) -> ProcessGroup:
    """Start a trainer in new processes. Raises OSError."""
    return ProcessGroup(launch, token, log)


@dataclass(frozen=True)
class Supervision:
    """How an attempt is supervised.

    stop: the request to stop its launcher. emit: takes what happens. stop_check: gives a reason to end its trainer
    although the launcher goes on. start: starts the trainer.
    """

    stop: StopRequest
    emit: EmitAttempt
    stop_check: StopCheck = never_stop
    start: Start = spawn


class StatusMonitor:
    """How long an attempt has been silent, by our own clock: a trainer that works writes its status once a second."""

    def __init__(self, run: RunFolder, token: str) -> None:
        self._paths = run.status_file, run.attempt_status(token)
        self._changed_at = self._looked_at = time.monotonic()
        self._last = self._written_at()

    def silence_s(self) -> float:
        """Seconds since the status was last seen to change, or since this was made."""
        now = time.monotonic()
        if now - self._looked_at >= STATUS_EVERY_S:
            self._looked_at = now
            if (written_at := self._written_at()) != self._last:
                self._last, self._changed_at = written_at, now
        return now - self._changed_at

    def _written_at(self) -> list[int]:
        times = []
        for path in self._paths:
            with suppress(OSError), watched(path):
                times.append(path.stat().st_mtime_ns)
        return times


async def supervise(
    trainer: ProcessGroup, job: QueueJob, monitor: StatusMonitor, lock: RunLock | None, supervision: Supervision
) -> StopReason | None:
    """Wait until the launcher has ended. On a request to stop, ask the trainer to save, and kill it after a grace.

    Gives why the trainer was ended, where that was for another reason. Raises LockLost.
    """
    stop, began = supervision.stop, time.monotonic()
    deadline: float | None = None
    reason: StopReason | None = None
    while trainer.exit_code is None:
        if deadline is None and not stop:
            reason = supervision.stop_check() or _limit_reached(job, time.monotonic() - began, monitor)
        if deadline is None and (stop or reason is not None):
            deadline = time.monotonic() + SHUTDOWN_S
            await _begin_to_stop(trainer, job.name, reason, supervision.emit)
        if deadline is not None and (stop.is_urgent or time.monotonic() > deadline):
            trainer.kill()
        if lock is not None:
            lock.heartbeat()
        supervision.emit(Tick())
        await asyncio.sleep(POLL_S)
    return reason


async def _begin_to_stop(trainer: ProcessGroup, name: str, reason: StopReason | None, emit: EmitAttempt) -> None:
    """A trainer that works may save; one that has stalled would not listen, and is killed."""
    emit(AttemptStopping(name) if reason is None else AttemptTerminating(name, reason.reason))
    if reason is not None and reason.state is RunState.STALLED:
        await trainer.dump_stacks()
        trainer.kill()
    else:
        trainer.ask_to_stop()


def _limit_reached(job: QueueJob, seconds: float, monitor: StatusMonitor) -> StopReason | None:
    """Whether a trainer has reached its time limit, or has been silent for too long."""
    if job.time_limit is not None and seconds > 60 * job.time_limit:
        reason = f"time_limit: {duration(60 * job.time_limit)} are over; `accel-train retry {job.name}` lets it go on"
        return StopReason(reason, RunState.PREEMPTED)
    if monitor.silence_s() > 60 * job.stall_timeout:
        reason = f"stalled: no step for {duration(60 * job.stall_timeout)} (stall_timeout)"
        return StopReason(f"{reason}; what every process was doing is in the log", RunState.STALLED)
    return None
