"""A worker that is called for one JSON answer: both ends of that answer, and of how far it is."""

import asyncio
import json
import logging
import math
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.event_loop import run_async
from accel_trainer.core.files import write_atomic
from accel_trainer.core.lease import Owner
from accel_trainer.core.outage import MachineFailure
from accel_trainer.core.processes import StopRequest
from accel_trainer.launch.attempt import STOP_SIGNALS
from accel_trainer.launch.command import Launch
from accel_trainer.launch.outcome import last_error_line
from accel_trainer.launch.process_group import POLL_S, ProcessGroup
from accel_trainer.launch.protocol import ERROR_PREFIX
from accel_trainer.run.log import begin_logging

_NOTE_EVERY_S = 0.5


class WorkerFailed(Exception):
    """The worker ended without an answer. log: all that it has printed, where that is kept."""

    log: Path | None = None


def call_worker(launch: Launch, answer: Path, log: Path, stop: StopRequest) -> dict[str, Any] | None:
    """As `worker_answer`, for who has nothing else to do meanwhile."""
    return run_async(lambda: worker_answer(launch, answer, log, stop))


async def worker_answer(launch: Launch, answer: Path, log: Path, stop: StopRequest) -> dict[str, Any] | None:
    """Launch a worker and wait for what it writes to `answer`; None if it was stopped, which ends it at once, and of a
    machine that is not the first of several.

    Raises UserError for the problems that it reports, and WorkerFailed.
    """
    exit_code = await _until_it_ends(launch, log, stop, answer.with_name(PROGRESS))
    if stop or (launch.machine_rank > 0 and exit_code == 0):
        return None
    try:
        found: dict[str, Any] = json.loads(answer.read_text())
    except FileNotFoundError as error:
        raise WorkerFailed(last_error_line(log, exit_code)) from error
    if "problems" in found:
        raise UserError(*found["problems"])
    return found


async def _until_it_ends(launch: Launch, log: Path, stop: StopRequest, progress: Path) -> int:
    """The launcher's exit code."""
    listener = _listener.get()
    worker = ProcessGroup(launch, Owner.new().token, log)
    try:
        while worker.exit_code is None:
            if stop:
                worker.kill()
            if listener is not None:
                listener(*_progress_in(progress))
            await asyncio.sleep(POLL_S)
    finally:
        exit_code = await worker.stop()
    return exit_code


# Takes how much is done, and of how much; None where that is not known.
Listener = Callable[[int | None, int | None], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """In this context a listener is told, ten times a second, how far the worker is that is called."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def _progress_in(path: Path) -> tuple[int | None, int | None]:
    with suppress(OSError, ValueError):
        done, total = map(int, path.read_text().split())
        return done, total
    return None, None


class ProgressNote:
    """The worker's side: notes beside its answer how much is done, and of how much, twice a second at most."""

    def __init__(self, answer: Path, rank: int) -> None:
        self._path, self._is_first = answer.with_name(PROGRESS), rank == 0
        self._noted = -math.inf

    def __call__(self, done: int, total: int) -> None:
        """Note it, on rank 0."""
        now = time.monotonic()
        if self._is_first and (now - self._noted >= _NOTE_EVERY_S or done == total):
            self._noted = now
            with suppress(OSError):  # it is only to be watched
                write_atomic(self._path, f"{done} {total}", durable=False)


log = logging.getLogger(__name__)


def answer(path: Path, rank: int, find: Callable[[], dict[str, Any]]) -> int:
    """Write what is found, on rank 0; the exit code for people. Every rank calls it."""
    begin_logging(None, rank)
    try:
        found = find()
    except UserError as mistake:
        log.error("%s%s", ERROR_PREFIX, mistake)
        found = {"problems": mistake.problems}
    except MachineFailure as failure:
        log.error("%s%s", ERROR_PREFIX, failure)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    if rank == 0:
        write_atomic(path, json.dumps(found), durable=False)
    return 2 if "problems" in found else 0


# What the worker writes, in the folder that it is given.
ANSWER, PROGRESS = "answer.json", "progress.txt"
# And prints.
LOG = "log.txt"


class WorkerStopped(Exception):
    """A signal has ended the call before there was an answer."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.number = number


@dataclass
class WorkerCall:
    """What came of a call: a row, or None of a machine that is not the first of several. `place` goes with the context,
    unless its log is kept."""

    row: dict[str, Any] | None
    place: Path
    is_kept: bool = False

    def keep_log(self) -> Path:
        """The path of the worker's whole output, which stays."""
        self.is_kept = True
        return self.place / LOG


def _remove(place: Path) -> None:
    """What has ended the call is said, whatever becomes of its folder. Where no more files may be opened, a folder
    cannot be listed; of one in which no worker has begun it is known what there is."""
    shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):
        for name in (ANSWER, PROGRESS, LOG):
            (place / name).unlink(missing_ok=True)
        place.rmdir()


@contextmanager
def called_worker(verb: str, plan: Callable[[Path], Launch]) -> Iterator[WorkerCall]:
    """Launch what is planned for a temporary folder, and wait for its answer there; a signal ends it.

    Raises UserError, WorkerStopped, and WorkerFailed, whose log is kept.
    """
    stop = StopRequest()
    stop.listen(*STOP_SIGNALS)  # first: a signal must not leave the folder behind
    call = WorkerCall(None, Path(tempfile.mkdtemp(prefix=f"accel-train-{verb}-")))
    try:
        try:
            call.row = call_worker(plan(call.place), call.place / ANSWER, call.place / LOG, stop)
        except WorkerFailed as error:
            error.log = call.keep_log()
            raise
        if stop.signal is not None:
            raise WorkerStopped(stop.signal)
        yield call
    finally:
        if not call.is_kept:
            _remove(call.place)
