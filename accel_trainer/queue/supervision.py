"""Staying with a trainer: until it ends, is asked to stop, has had its time or does nothing any more."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from accel_trainer.config import Job
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.text import duration
from accel_trainer.queue.ending import Cut
from accel_trainer.queue.launcher import SHUTDOWN_S
from accel_trainer.queue.trainer import POLL_S, Trainer
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import Ownership
from accel_trainer.run.status import RunState

LISTEN_EVERY_S = 1.0


class AttemptWatcher(Protocol):
    """Who is told how an attempt goes; the words for people are its own."""

    def started(self, name: str, run: RunFolder, log: Path) -> None: ...

    def tick(self) -> None:
        """A moment has passed while a trainer is running."""

    def stopping(self, name: str) -> None: ...

    def cutting(self, name: str, reason: str) -> None:
        """The job's trainer is ended for this reason."""


class Heartbeat:
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


# Asked again and again what is wanted of a job: why to end its trainer, or None.
Orders = Callable[[], Cut | None]


def no_orders() -> Cut | None:
    """Nobody wants anything of a job but that it is trained."""
    return None


async def stay_with(
    trainer: Trainer,
    job: Job,
    run: RunFolder,
    ownership: Ownership | None,
    stop: StopRequest,
    watcher: AttemptWatcher,
    orders: Orders = no_orders,
) -> Cut | None:
    """Until the launcher has ended. When asked to stop, ask the trainer, and end it if it does not listen.

    Gives why the trainer was ended, if it was for another reason. Raises OwnershipLost.
    """
    heartbeat, began = Heartbeat(run), time.monotonic()
    deadline: float | None = None
    cut: Cut | None = None
    while trainer.exit_code is None:
        if deadline is None and not stop:
            cut = orders() or _why_to_end(job, time.monotonic() - began, heartbeat)
        if deadline is None and (stop or cut is not None):
            deadline = time.monotonic() + SHUTDOWN_S
            await _begin_to_end(trainer, job.name, cut, watcher)
        if deadline is not None and (stop.is_urgent or time.monotonic() > deadline):
            trainer.kill()
        if ownership is not None:
            ownership.beat()
        watcher.tick()
        await asyncio.sleep(POLL_S)
    return cut


async def _begin_to_end(trainer: Trainer, name: str, cut: Cut | None, watcher: AttemptWatcher) -> None:
    """A trainer that works may save; one that does nothing any more would not listen."""
    if cut is None:
        watcher.stopping(name)
    else:
        watcher.cutting(name, cut.reason)
    if cut is not None and cut.state is RunState.STALLED:
        await trainer.dump_stacks()
        trainer.kill()
    else:
        trainer.ask_to_stop()


def _why_to_end(job: Job, seconds: float, heartbeat: Heartbeat) -> Cut | None:
    """Whether a trainer has had its time, or has been silent for too long."""
    if job.time_limit is not None and seconds > 60 * job.time_limit:
        reason = f"time_limit: {duration(60 * job.time_limit)} are over; `accel-train retry {job.name}` lets it go on"
        return Cut(reason, RunState.PREEMPTED)
    if heartbeat.silence_s() > 60 * job.stall_timeout:
        reason = f"stalled: no step for {duration(60 * job.stall_timeout)} (stall_timeout)"
        return Cut(f"{reason}; what every process was doing is in the log", RunState.STALLED)
    return None
