"""log.txt of a run: the handlers that write it, and the tail that a terminal shows."""

import logging
import logging.handlers
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import TextIO

from accel_trainer.core.blocks import BLOCK_BYTES, read_block
from accel_trainer.core.disk_calls import watched
from accel_trainer.core.errors import AccelTrainError
from accel_trainer.core.files import MEBIBYTE, open_to_write
from accel_trainer.core.text import one_line, printable
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockLost

log = logging.getLogger("accel_trainer")
# What is kept of a log while it cannot be written.
MAX_LEFT = MEBIBYTE


def begin_logging(run: RunFolder | None, rank: int) -> "HeldBack | None":
    """Log to standard output, and on rank 0 also to the run's log.txt, which has no other program's noise.

    Gives what holds the lines for log.txt back, where there is a run in the folder already: see `HeldBack`.
    """
    log.setLevel(logging.INFO)
    log.propagate = False
    output = _Output(sys.stdout)
    output.setFormatter(_Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    log.handlers = [output]
    if run is None or rank != 0:
        return None
    file = _LogFile(run)
    file.setFormatter(_Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    held_back = HeldBack(file)
    log.addHandler(held_back)
    if not run.has_run:
        held_back.begin()
    return held_back


@contextmanager
def run_log(run: RunFolder, rank: int, *, prints: bool) -> Iterator[Callable[[], None]]:
    """Log as `begin_logging` does, without standard output unless it prints; afterwards as before.

    Gives what is to be called once the run in the folder is ours: from then on lines are written to log.txt.
    """
    before = log.handlers, log.level, log.propagate
    held_back = begin_logging(run, rank)
    if not prints:
        log.handlers = log.handlers[1:]
    try:
        yield held_back.begin if held_back is not None else lambda: None
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers, log.level, log.propagate = before


class _Formatter(logging.Formatter):
    """What others have given, such as the names of images, stands in a line without making lines of its own, and moves
    no cursor. A text that is a whole message keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, or lines, of a message."""
        arguments = record.args
        if isinstance(arguments, tuple) and arguments and record.msg != "%s":
            record = copy(record)
            record.message = str(record.msg) % tuple(map(_harmless, arguments))
        return printable(super().formatMessage(record))


def _harmless(value: object) -> object:
    """An argument of a message: of an error with several problems a line each, of anything else one."""
    match value:
        case AccelTrainError():
            return str(value)
        case bool() | int() | float():
            return value
        case _:
            return one_line(value)


class _Forgiving(logging.Handler):
    """A line that cannot be written, because the disk is full, is lost; nothing else is."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Output(_Forgiving, logging.StreamHandler[TextIO]):
    pass


class _LogFile(logging.Handler):
    """log.txt, as long as the run folder is this process's. What cannot be written now is written with a later line, as
    far as it is not too much; the file is opened for each, since one that is open may be of a disk that was mounted
    anew since."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self._run, self._left = run, b""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(LockLost):
            self._run.check_owner()
            try:
                line = f"{self.format(record)}\n".encode(errors="replace")
            except Exception:
                self.handleError(record)
                return
            if len(self._left) < MAX_LEFT:
                self._left += line
            self._write()

    def _write(self) -> None:
        with suppress(OSError), open_to_write(self._run.log, buffering=0) as file:
            self._run.check_owner()  # opening it may have taken long
            while self._left:
                with watched(self._run.log):
                    self._left = self._left[file.write(self._left) :]

    def close(self) -> None:
        """Write what is left, if that is possible now."""
        if self._left:
            with suppress(LockLost):
                self._run.check_owner()
                self._write()
        super().close()


class HeldBack(logging.handlers.MemoryHandler):
    """Keeps the lines for log.txt of an attempt at a run that is there already, until all of it was checked: the log of
    a run says nothing of attempts that were refused."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(capacity=10_000, flushLevel=logging.CRITICAL + 1, target=target, flushOnClose=False)
        self._target, self._has_begun = target, False

    def begin(self) -> None:
        """Write what was kept; from now on every line at once."""
        self._has_begun = True
        self.flush()

    def shouldFlush(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging's name
        """When a line is written at once."""
        return self._has_begun

    def close(self) -> None:
        """Close log.txt too."""
        super().close()
        self._target.close()


_TIMESTAMP = len("2026-01-01 00:00:00 ")


class LogTail:
    """The lines that have come to a run's log.txt since this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0

    def new_lines(self) -> list[str]:
        """Whole new lines, without their time stamps."""
        try:
            with watched(self._path):
                return self._new_lines()
        except OSError:
            return []

    def _new_lines(self) -> list[str]:
        backlog = self._path.stat().st_size - self._position
        # What comes faster than a terminal shows it is in the file.
        self._position += max(0, backlog - BLOCK_BYTES)
        text = read_block(self._path, self._position)
        whole = text[: text.rfind(b"\n") + 1] or text[: len(text) if len(text) == BLOCK_BYTES else 0]
        self._position += len(whole)
        return [_without_time(line) for line in whole.decode(errors="replace").splitlines()]


def _without_time(line: str) -> str:
    return line[_TIMESTAMP:] if line[:4].isdigit() and line[4:5] == "-" else line
