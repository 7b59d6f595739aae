"""The standard streams of the command line: whatever becomes of a terminal, it is no reason to fail.

A terminal may lack letters, be closed, or go away; `| head` reads no more than it wants; a disk behind `>` may be full.
"""

import errno
import io
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, TextIO

from accel_trainer.cli.background_output import BackgroundOutput

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Stream(io.RawIOBase):
    """Writes to a descriptor until that fails; from then on what is written is dropped, and `error` says why."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None
        self.background: BackgroundOutput | None = None

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, content: "ReadableBuffer", /) -> int:
        if self.background is not None and self.error is None:
            self.background.put(self._write_all, bytes(content))
        elif self.error is None:
            return self._write(content)
        return memoryview(content).nbytes

    def _write_all(self, content: bytes) -> None:
        while content and self.error is None:
            content = content[self._write(content) :]

    def _write(self, content: "ReadableBuffer") -> int:
        while self.error is None:
            try:
                return os.write(self._descriptor, content)
            except BlockingIOError:  # another program has set the terminal so
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
        return memoryview(content).nbytes


def use_utf8() -> None:
    """Where the locale has file names in another encoding, start anew with Python's UTF-8 mode: the names of jobs are
    the same in every locale. What is printed is still in the letters of the terminal. To be called first of all."""
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def protect_streams() -> None:
    """Have standard output and standard error take whatever is written. To be called before anything is opened."""
    _open_missing()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - it stays open
    if sys.stdout is sys.__stdout__ or sys.stdout is None:
        sys.stdout = _protected(1, sys.stdout)
    if sys.stderr is sys.__stderr__ or sys.stderr is None:
        sys.stderr = _protected(2, sys.stderr)


def _open_missing() -> None:
    """What a program is started without, as by `>&-`, would become the next file that it opens, a log or a job."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(null := os.open(os.devnull, os.O_RDWR), descriptor)
            if null != descriptor:
                os.close(null)


def _protected(descriptor: int, before: TextIO | None) -> TextIO:
    if before is not None:
        before.flush()
    stream = io.BufferedWriter(_Stream(descriptor))
    encoding = "utf-8" if before is None else before.encoding
    is_at_once = descriptor == 2 or os.isatty(descriptor)
    return io.TextIOWrapper(stream, encoding, errors="backslashreplace", line_buffering=is_at_once)


def never_wait() -> None:
    """From now on no reader keeps the one who prints: what he has no room for is left out, and that is said.

    Nor does a terminal stop who prints from the background (`stty tostop`).
    """
    streams = [raw for stream in (sys.stdout, sys.stderr) if (raw := _raw(stream)) is not None]
    if streams:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        background = BackgroundOutput()
        for raw in streams:
            raw.background = background


def is_behind() -> bool:
    """Whether what was printed waits for a reader. What is only of this moment should not be added to it."""
    raw = _raw(sys.stdout)
    return raw is not None and raw.background is not None and raw.background.is_behind


def _raw(stream: TextIO) -> _Stream | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Stream) else None


def output_error() -> OSError | None:
    """Why nothing can be printed any more, once that is so."""
    raw = _raw(sys.stdout)
    return None if raw is None else raw.error


def lost_output() -> OSError | None:
    """Why something that was printed is lost; None where the reader has stopped, as `head` does, and misses nothing."""
    sys.stdout.flush()
    if (raw := _raw(sys.stdout)) is not None and raw.background is not None:
        raw.background.drain()
    error = output_error()
    return None if error is None or error.errno == errno.EPIPE else error
