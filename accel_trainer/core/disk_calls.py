"""Calls on a disk that may be away for a moment: what fails is tried again, and what hangs is said.

By these a run folder and a queue are read and written. `outage` waits for inputs, of which more is known: what a user
may have named wrongly, and what was there before.

    on_disk(call, path)     one call, tried again where this process waits for disks (`retrying`)
    watched(path)           one call that may hang, and that is said where this process does so (`saying_hangs`)
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from accel_trainer.core.machine_errors import PASSING, TRIED_FOR
from accel_trainer.core.text import duration

T = TypeVar("T")
Say = Callable[[str], None]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# A folder that is gone, and not only silent, may have been moved by somebody.
GONE_S = 20.0
# How soon a request to stop is heard.
_LOOK_EVERY_S = 0.05
# A call that does not return for so long is said, and again each time that it has taken twice as long.
HANGS_S = 10.0
_WATCH_EVERY_S = 1.0


def _say_nothing(line: str) -> None:
    """Nobody is told."""


def never() -> bool:
    """Of what nobody stops, but by ending the process."""
    return False


# -- what fails is tried again -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Patience:
    """How long this process tries again, who may end that, whom it tells, and which folders were there when it began:
    what is missing while one of them is missing is away."""

    seconds: float = 0.0
    is_stopped: Callable[[], bool] = never
    say: Say = _say_nothing
    folders: tuple[str, ...] = ()

    def of(self, error: OSError) -> float:
        """Seconds for which this error is waited out."""
        return self.seconds if error.errno in PASSING else min(self.seconds, GONE_S)


class _Outage:
    """Since when calls have failed in a row: all of them, those on each path and in each folder. What does not end is
    waited for once, and not once for each call, whether all is away, one of several disks or one file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None
        self._since_in: dict[str, float] = {}
        self._is_said = False

    def failed(self, path: str) -> float:
        """A call has failed: when the failures began."""
        with self._lock:
            now = time.monotonic()
            if self._since is None:
                self._since = now
            return min(self._since, *(self._since_in.setdefault(place, now) for place in _places(path)))

    def worked(self, path: str) -> None:
        """A call has not failed."""
        if self._since is None and not self._since_in:  # as nearly always
            return
        with self._lock:
            self._since = None
            began = [self._since_in.pop(place, None) for place in _places(path)]
            since = min((when for when in began if when is not None), default=None)
            is_over = self._is_said and since is not None
            self._is_said &= not is_over
        if is_over and since is not None:
            _patience.say(f"the disk works again, after {duration(time.monotonic() - since)}")

    def tell(self, line: str) -> None:
        """Say that something is tried again, once for an outage."""
        with self._lock:
            is_first, self._is_said = not self._is_said, True
        if is_first:
            _patience.say(line)


_patience, _outage = _Patience(), _Outage()


def _places(path: str) -> tuple[str, str]:
    return path, os.path.dirname(path)  # noqa: PTH120 - names only


@contextmanager
def retrying(
    seconds: float, is_stopped: Callable[[], bool] = never, say: Say = _say_nothing, folders: Collection[Path] = ()
) -> Iterator[None]:
    """In this context all threads of this process try again what a disk has failed to do, for so many seconds.

    is_stopped: ends that, at once. say: takes a line when it begins, and one when the disk works again. folders: those
    that are there; while one is missing, what is missing in it is away.
    """
    global _patience, _outage
    before = _patience, _outage
    # Absolute, and links stay.
    _patience, _outage = _Patience(seconds, is_stopped, say, tuple(map(os.path.abspath, folders))), _Outage()
    try:
        yield
    finally:
        _patience, _outage = before


def on_disk(call: Callable[[], T], path: str | os.PathLike[str]) -> T:
    """What a call gives that reads or writes at a path, and may be made again.

    Errors that may pass are waited out, where this process does so. At the end of its patience, or at a stop, raises
    the OSError itself, which then says for how long it was tried.
    """
    name = os.fspath(path)
    try:
        with watched(name):
            given = call()
    except OSError as error:
        if not _patience.seconds or not may_pass(error, name):
            raise
        return _try_again(call, name, error)
    _outage.worked(name)
    return given


def may_pass(error: OSError, path: str) -> bool:
    """Whether an error is of a disk that is away, and not an answer about what is on it."""
    if error.errno in PASSING:
        return not (error.strerror or "").count(TRIED_FOR)  # by a call within this one
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES) and _is_away(path)


def _is_away(path: str) -> bool:
    """Whether a folder that was there, and should have this in it, is not there now."""
    wanted = os.path.abspath(path)  # noqa: PTH100 - links stay
    around = (folder for folder in _patience.folders if f"{wanted}{os.sep}".startswith(f"{folder}{os.sep}"))
    return any(not os.path.isdir(folder) for folder in around)  # noqa: PTH112 - never raises


def _try_again(call: Callable[[], T], name: str, error: OSError) -> T:
    patience, pause_s = _patience, FIRST_PAUSE_S
    while True:
        began = _outage.failed(name)
        left_s = began + patience.of(error) - time.monotonic()
        if left_s <= 0 or not _slept(min(pause_s, left_s), patience.is_stopped):
            raise _given_up(error, name, time.monotonic() - began) from error
        reason = error.strerror or str(error)
        _outage.tell(f"{name}: {reason}; trying again for up to {duration(patience.of(error))}")
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        try:
            with watched(name):
                given = call()
        except OSError as next_error:
            if not may_pass(next_error, name):
                raise
            error = next_error
        else:
            _outage.worked(name)
            return given


def _given_up(error: OSError, name: str, seconds: float) -> OSError:
    """What is missing with its whole folder is an error of the disk, and no answer."""
    number = error.errno if error.errno in PASSING else errno.ENODEV
    tried = f"{TRIED_FOR}{duration(seconds)})" if seconds >= 1 else ""
    return OSError(number, f"{error.strerror or error}{tried}", error.filename if error.filename is not None else name)


def _slept(seconds: float, is_stopped: Callable[[], bool]) -> bool:
    """False as soon as a stop is requested."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        if is_stopped():
            return False
        time.sleep(min(left_s, _LOOK_EVERY_S))
    return not is_stopped()


# -- what hangs is said ------------------------------------------------------------------------------------------------


class watched:  # noqa: N801 - used as a context, and made for every call
    """A context for one call that may hang. path: of what it waits for, or what gives it. is_over: is set when the call
    is over, where that is before the end of the context."""

    __slots__ = ("is_over", "path", "since", "thread")

    def __init__(
        self, path: str | os.PathLike[str] | Callable[[], str], is_over: threading.Event | None = None
    ) -> None:
        self.path, self.is_over = path, is_over

    def __str__(self) -> str:
        return os.fspath(self.path() if callable(self.path) else self.path)

    def __enter__(self) -> None:
        self.since, self.thread = time.monotonic(), threading.get_ident()
        _calls[id(self)] = self

    def __exit__(self, *_: object) -> None:
        del _calls[id(self)]
        _returned[self.thread] = time.monotonic()


# Of all threads; adding and removing are single operations of a dict.
_calls: dict[int, watched] = {}
# When a call has returned last, by threads: what is around it does not hang since longer than that.
_returned: dict[int, float] = {}


def _oldest() -> tuple[watched | None, int]:
    """The call that has taken longest of those that take too long, and how many there are; of a thread that which it
    has made last."""
    newest: dict[int, watched] = {}
    for call in [call for call in list(_calls.values()) if call.is_over is None or not call.is_over.is_set()]:
        known = newest.get(call.thread)
        if known is None or call.since >= known.since:
            newest[call.thread] = call
    since = {call: max(call.since, _returned.get(call.thread, 0.0)) for call in newest.values()}
    late = {call: when for call, when in since.items() if time.monotonic() - when >= HANGS_S}
    return min(late, key=late.__getitem__, default=None), len(late)


@contextmanager
def saying_hangs(say: Say, say_end: Say | None = None) -> Iterator[None]:
    """In this context a thread says which call does not return, in a line now and then, and when that is over.

    say: takes a line, in that thread, while the others hang. say_end: takes the last line, by default `say` does.
    """
    global _watch_is_over
    before, is_over = _watch_is_over, threading.Event()
    _watch_is_over = is_over
    thread = threading.Thread(
        target=_watch, args=(is_over, say, say if say_end is None else say_end), name="disk watch", daemon=True
    )
    with suppress(RuntimeError):  # no more threads may be started: then no hang is said
        thread.start()
    try:
        yield
    finally:
        _watch_is_over = before
        is_over.set()


# Of the innermost context, which alone says anything.
_watch_is_over: threading.Event | None = None


def _watch(is_over: threading.Event, say: Say, say_end: Say) -> None:
    say_at_s, longest_s = HANGS_S, 0.0
    while not is_over.wait(min(_WATCH_EVERY_S, HANGS_S / 4)):
        call, number = _oldest() if _watch_is_over is is_over else (None, 0)
        if call is None:
            if longest_s:
                say_end(f"the disk answers again, after {longest_s:,.0f} s")
            say_at_s, longest_s = HANGS_S, 0.0
            continue
        longest_s = time.monotonic() - call.since
        if longest_s >= say_at_s:
            others = f", and {number - 1} more" if number > 1 else ""
            say(f"waiting for the disk: {longest_s:,.0f} s ({call}{others})")
            while say_at_s <= longest_s:
                say_at_s *= 2
