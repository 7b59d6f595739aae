"""Reading files that may be very long: in blocks, from anywhere, and their last lines from the end."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from accel_trainer.core.files import open_regular

BLOCK_BYTES = 2**20


def read_block(path: Path, position: int) -> bytes:
    """What is in a regular file from a position on, as far as one block. Raises OSError."""
    descriptor = open_regular(path)
    try:
        return os.pread(descriptor, BLOCK_BYTES, position)
    finally:
        os.close(descriptor)


def blocks(path: Path, position: int = 0) -> Iterator[bytes]:
    """The content of a file from a position to its end, block by block. Raises OSError."""
    while content := read_block(path, position):
        yield content
        position += len(content)


def start_of_last_lines(path: Path, number: int) -> int:
    """Where the last lines of a file begin, so many of them; 0 where there are no more. Raises OSError."""
    descriptor = open_regular(path)
    try:
        size = end = os.fstat(descriptor).st_size
        left = number
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            content = os.pread(descriptor, end - start, start)
            # A line break at the very end belongs to the last line.
            at = len(content) - (1 if end == size and content.endswith(b"\n") and number else 0)
            while left and (at := content.rfind(b"\n", 0, at)) >= 0:
                left -= 1
            if not left:
                return size if number == 0 else start + at + 1
            end = start
        return 0
    finally:
        os.close(descriptor)


@contextmanager
def open_text(path: Path, max_bytes: int) -> Iterator[TextIO]:
    """A regular file, to be read line by line; what is not UTF-8 is replaced, line breaks stay. Raises OSError."""
    with os.fdopen(open_regular(path), encoding="utf-8", errors="replace", newline="") as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes // 1024:,} KiB", str(path))
        yield file
