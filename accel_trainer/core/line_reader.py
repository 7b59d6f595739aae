"""Lines that come by a descriptor, in whatever pieces."""

import os

# How much is read at once.
BLOCK = 1 << 16


class LineReader:
    """Lines from a descriptor, which may be one that never blocks."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.is_over = False
        self._lines: list[bytes] = []
        self._partial = b""

    def read(self) -> bool:
        """Read what is there, or wait for it; whether there was anything. At its end, `is_over`."""
        try:
            block = os.read(self.descriptor, BLOCK)
        except BlockingIOError:  # nothing yet
            return False
        except OSError:
            block = b""
        self.is_over = not block
        *lines, self._partial = (self._partial + block).split(b"\n")
        self._lines += lines
        return bool(block)

    def next(self) -> bytes | None:
        """The next whole line that has been read."""
        return self._lines.pop(0) if self._lines else None
