"""The standard streams of the command line: whatever becomes of a terminal, it is no reason to fail.

A terminal may lack letters, be closed, or go away; `| head` reads no more than it wants; a disk behind `>` may be full.
"""

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Stream(io.RawIOBase):
    """Writes to a descriptor until that fails; from then on what is written is dropped, and `error` says why."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, content: "ReadableBuffer", /) -> int:
        while self.error is None:
            try:
                return os.write(self._descriptor, content)
            except BlockingIOError:  # another program has set the terminal so
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
        return memoryview(content).nbytes


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


def output_error() -> OSError | None:
    """Why nothing can be printed any more, once that is so."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Stream) else None


def lost_output() -> OSError | None:
    """Why something that was printed is lost; None where the reader has stopped, as `head` does, and misses nothing."""
    sys.stdout.flush()
    error = output_error()
    return None if error is None or error.errno == errno.EPIPE else error
