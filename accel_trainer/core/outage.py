"""Disks that go away for a while: what cannot be read is tried again, and in the end it is the machine's failure.

A network disk that is away, a permission that has expired or a file handle that is stale say nothing about the file
that is read. Whoever trains waits for the end of such an outage (`waiting_out`); everybody else sees the error at once.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from accel_trainer.core.errors import AccelTrainError
from accel_trainer.core.text import duration

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# How long an outage may last. The processes of a job wait for each other, with NCCL for no longer than ten minutes.
PATIENCE_S = 300.0
# A file that is gone while its folder is there seldom comes back.
PATIENCE_FOR_FILE_S = 60.0
# Seconds in place of PATIENCE_S.
PATIENCE_VARIABLE = "ACCEL_TRAIN_DISK_PATIENCE_S"
# How soon a request to stop is heard.
_LOOK_EVERY_S = 0.05


class MachineFailure(AccelTrainError):
    """The machine, or a disk of it, does not do what it should: the job has no mistake, and may go well later."""


class StoppedWaiting(Exception):
    """A stop was requested while a disk was away."""


class UnsuitableFile(OSError):
    """What is there was found, and is not to be read: it is no regular file, or too large. It will not change."""


@dataclass(frozen=True)
class _Patience:
    """How long errors of this process are waited out, and who may end that."""

    seconds: float = 0.0
    is_stopped: Callable[[], bool] = lambda: False

    def of(self, error: OSError) -> float:
        """Seconds for which this error is waited out."""
        return min(self.seconds, PATIENCE_FOR_FILE_S) if _is_gone(error) else self.seconds


_patience = _Patience()


@contextmanager
def waiting_out(is_stopped: Callable[[], bool], *, at_most_s: float | None = None) -> Iterator[None]:
    """In this context all threads of this process wait for the end of an outage, until a stop is requested.

    at_most_s: how long, where that is less than PATIENCE_S.
    """
    global _patience
    before = _patience
    seconds = _seconds_wanted()
    _patience = _Patience(seconds if at_most_s is None else min(seconds, at_most_s), is_stopped)
    try:
        yield
    finally:
        _patience = before


def _seconds_wanted() -> float:
    try:
        seconds = float(os.environ[PATIENCE_VARIABLE])
    except (KeyError, ValueError):
        return PATIENCE_S
    return seconds if 0 <= seconds < float("inf") else PATIENCE_S


def persistently(read: Callable[[], T], what: Callable[[], str], *, may_be_missing: bool = False) -> T:
    """What `read` gives. An error of the system is waited out, where that is wanted in this process.

    what: names what is read, for a message. may_be_missing: that there is no such file is an answer. Raises the OSError
    itself where nobody waits, else MachineFailure when patience is at its end; StoppedWaiting.
    """
    try:
        return read()
    except OSError as error:
        if not _patience.seconds or _is_answer(error, may_be_missing):
            raise
        return _wait(read, what, error, may_be_missing)


def _is_answer(error: OSError, may_be_missing: bool) -> bool:
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return isinstance(error, UnsuitableFile) or (may_be_missing and is_missing)


def _wait(read: Callable[[], T], what: Callable[[], str], error: OSError, may_be_missing: bool) -> T:
    """Try again after growing pauses. Raises as `persistently`."""
    began, pause_s = time.monotonic(), FIRST_PAUSE_S
    with _outage.one_more_waits(error, what):
        while True:
            left_s = began + _patience.of(error) - time.monotonic()
            if left_s <= 0:
                raise failure(error, what, tried_s=time.monotonic() - began) from error
            _sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                return read()
            except OSError as next_error:
                if _is_answer(next_error, may_be_missing):
                    raise
                error = next_error


def _sleep(seconds: float) -> None:
    """Raises StoppedWaiting as soon as a stop is requested."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        if _patience.is_stopped():
            raise StoppedWaiting
        time.sleep(min(left_s, _LOOK_EVERY_S))


def failure(error: OSError, what: Callable[[], str], *, tried_s: float = 0.0) -> MachineFailure:
    """An error of the system as the failure of the machine that it is."""
    name, tried = _name(error, what), f" (tried for {duration(tried_s)})" if tried_s >= 1 else ""
    if _is_gone(error):
        return MachineFailure(f"{name} is gone, and its folder is there{tried}", hint="restore it")
    return MachineFailure(f"{name} cannot be read: {error.strerror or error}{tried}")


def _is_gone(error: OSError) -> bool:
    """Whether there is a folder without the file that was to be in it."""
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str | bytes):
        return False
    return os.path.isdir(os.path.dirname(os.fsdecode(error.filename)) or ".")  # noqa: PTH112, PTH120 - never raises


def _name(error: OSError, what: Callable[[], str]) -> str:
    try:
        return what()
    except OSError:  # a name may be on the same disk
        return str(error.filename or "the data set")


class _Outage:
    """What all threads that wait at the moment report: one line when the first of them begins, one when reading works
    again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._began = 0.0

    @contextmanager
    def one_more_waits(self, error: OSError, what: Callable[[], str]) -> Iterator[None]:
        """In this context one thread more waits."""
        with self._lock:
            self._waiting += 1
            if self._waiting == 1:
                self._began = time.monotonic()
                reason, patience = error.strerror or str(error), duration(_patience.of(error))
                log.warning("cannot read %s: %s; trying again for up to %s", _name(error, what), reason, patience)
        works_again = False
        try:
            yield
            works_again = True
        finally:
            with self._lock:
                self._waiting -= 1
                if works_again and not self._waiting:
                    log.warning("reading works again, after %s", duration(time.monotonic() - self._began))


_outage = _Outage()
