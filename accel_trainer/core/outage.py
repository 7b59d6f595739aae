"""Disks that go away for a while: what cannot be read is tried again, and in the end it is the machine's failure.

A network disk that is away, a permission that has expired or a file handle that is stale say nothing about the file
that is read. Whoever trains waits for the end of such an outage (`waiting_out`); everybody else sees the error at once.
What was there before and is missing now (`expecting`) is such an outage, too; what never was there is a user's mistake.
"""

import errno
import logging
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

from accel_trainer.core.disk_calls import retrying, watched
from accel_trainer.core.errors import AccelTrainError
from accel_trainer.core.machine_errors import OF_A_PATH, USERS, what_helps
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
AWAY = "the run began with it: is a disk away?"


class MachineFailure(AccelTrainError):
    """The machine, or a disk of it, does not do what it should: the job has no mistake, and may go well later."""


class StoppedWaiting(Exception):
    """A stop was requested while a disk was away."""


class UnsuitableFile(OSError):
    """What is there was found, and is not to be read: it is no regular file, or too large. It will not change."""


class Missing(FileNotFoundError):
    """What should be there is not, such as all that is in a folder where a disk is mounted."""

    def __init__(self, reason: str, where: str | os.PathLike[str]) -> None:
        super().__init__(errno.ENOENT, reason, os.fspath(where))


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
def waiting_out(
    is_stopped: Callable[[], bool], *, at_most_s: float | None = None, folders: Collection[Path] = ()
) -> Iterator[None]:
    """In this context all threads of this process wait for the end of an outage, until a stop is requested; also when
    they write (`disk_calls`).

    at_most_s: how long, where that is less than PATIENCE_S. folders: those that are written in, and are there.
    """
    global _patience
    before = _patience
    seconds = seconds_wanted()
    _patience = _Patience(seconds if at_most_s is None else min(seconds, at_most_s), is_stopped)
    try:
        with retrying(_patience.seconds, is_stopped, log.warning, folders):
            yield
    finally:
        _patience = before


@dataclass(frozen=True)
class _Expectation:
    """What was there before, but for what is below `own`. is_told: whoever does not wait is told at once that it is the
    machine's failure."""

    names: tuple[str, ...] = ()
    own: str | None = None
    is_told: bool = False

    def has(self, name: str) -> bool:
        """Whether this is one of the names, or below one that is a folder."""
        wanted = os.path.abspath(name)  # noqa: PTH100 - links stay
        if self.own is not None and f"{wanted}{os.sep}".startswith(f"{self.own}{os.sep}"):
            return False
        return any(name == known or wanted == known or wanted.startswith(f"{known}{os.sep}") for known in self.names)


_expectation = _Expectation()


@contextmanager
def expecting(names: Collection[str], *, own: Path | None = None, is_told: bool = False) -> Iterator[None]:
    """In this context these files and folders, with all that is in them, were there before; what is missing is away.

    names: absolute paths, or what else a data set is called. own: a folder of the caller's, maybe in one of them, in
    which what is missing is not there. is_told: for a process that does not wait: errors of the
    system are raised as MachineFailure at once, where no user can have made a mistake.
    """
    global _expectation
    before = _expectation
    _expectation = _Expectation(tuple(names), None if own is None else os.path.abspath(own), is_told)  # noqa: PTH100
    try:
        yield
    finally:
        _expectation = before


def refuse_if_expected(name: str | os.PathLike[str], what: str) -> None:
    """Raise MachineFailure, saying `what` is missing, where that was there before."""
    if _expectation.has(os.fspath(name)):
        raise MachineFailure(what, hint=AWAY)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder. Raises as `persistently`."""
    return _has_mode(path, stat.S_ISDIR)


def is_file(path: Path) -> bool:
    """Whether there is such a regular file. Raises as `persistently`."""
    return _has_mode(path, stat.S_ISREG)


def _has_mode(path: Path, is_so: Callable[[int], bool]) -> bool:
    try:
        return is_so(persistently(partial(os.stat, path), lambda: str(path), may_be_missing=True).st_mode)
    except OSError as error:
        if error.errno in OF_A_PATH:
            return False
        raise
    except ValueError:  # no name of a file
        return False


@contextmanager
def waiting_out_until_interrupted() -> Iterator[None]:
    """`waiting_out` for what has nothing to save: Ctrl-C ends all waiting, and takes its usual course."""
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        if callable(before):
            before(number, frame)

    with waiting_out(interrupted.is_set):
        if not callable(before):  # somebody else decides about it
            yield
            return
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def seconds_wanted() -> float:
    """How long an outage is waited for, as the environment has it, or else PATIENCE_S."""
    try:
        seconds = float(os.environ[PATIENCE_VARIABLE])
    except (KeyError, ValueError):
        return PATIENCE_S
    return seconds if 0 <= seconds < float("inf") else PATIENCE_S


def persistently(read: Callable[[], T], what: Callable[[], str], *, may_be_missing: bool = False) -> T:
    """What `read` gives. An error of the system is waited out, where that is wanted in this process.

    what: names what is read, for a message. may_be_missing: that there is no such file is an answer, unless there was
    one before (`expecting`). Raises the OSError itself where nobody waits, else MachineFailure when patience is at its
    end; StoppedWaiting.
    """
    try:
        with watched(what):
            return read()
    except OSError as error:
        if _is_answer(error, what, may_be_missing):
            raise
        if _patience.seconds:
            return _wait(read, what, error, may_be_missing)
        if _expectation.is_told and (error.errno not in USERS or _is_expected(error, what)):
            raise failure(error, what) from error
        raise


def _is_answer(error: OSError, what: Callable[[], str], may_be_missing: bool) -> bool:
    if isinstance(error, UnsuitableFile):
        return True
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return may_be_missing and is_missing and not _is_expected(error, what)


def _is_expected(error: OSError, what: Callable[[], str]) -> bool:
    """Whether what could not be read was there before."""
    names = [str(error.filename)] if error.filename is not None else []
    return any(map(_expectation.has, [*names, _name(error, what)]))


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
                with watched(what):
                    return read()
            except OSError as next_error:
                if _is_answer(next_error, what, may_be_missing):
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
    if isinstance(error, Missing):
        return MachineFailure(f"{name}: {error.strerror}{tried}", hint=AWAY)
    if _is_gone(error):
        return MachineFailure(f"{name} is gone, and its folder is there{tried}", hint="restore it")
    hint = what_helps(error) if tried else None
    return MachineFailure(f"{name} cannot be read: {error.strerror or error}{tried}", hint=hint)


def _is_gone(error: OSError) -> bool:
    """Whether there is a folder without the file that was to be in it."""
    if not isinstance(error, FileNotFoundError) or isinstance(error, Missing):
        return False
    if not isinstance(error.filename, str | bytes):
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
