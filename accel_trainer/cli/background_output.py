"""Output that nobody waits for: a thread writes it, while what it is about goes on.

A terminal that is stopped by Ctrl-S, `| less` that waits for its reader, or a full pipe block who writes to them.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

# What is kept for a reader who does not read. Further lines are left out, and counted.
MOST_BYTES = 1 << 20
# How long is waited in the end for a reader who takes nothing.
PATIENCE_S = 3.0

Write = Callable[[bytes], object]


class BackgroundOutput:
    """What is put in is written in its order by one thread, whatever streams it is for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Write, bytes]] = deque()
        self._num_bytes = 0
        self._left_out: dict[Write, int] = {}  # lines since the last that was taken
        self._num_written = 0
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, write: Write, content: bytes) -> None:
        """Have this written; never waits. Where too much waits already, it is left out."""
        with self._changed:
            if self._num_bytes + len(content) > MOST_BYTES or (write in self._left_out and self._waiting):
                self._left_out[write] = self._left_out.get(write, 0) + content.count(b"\n")
                return
            self._say_left_out(write)
            self._add(write, content)
            self._changed.notify_all()

    def _say_left_out(self, write: Write) -> None:
        if (lines := self._left_out.pop(write, None)) is not None:
            self._add(write, b"\n[%d lines left out: they could not be printed in time]\n" % lines)

    def _add(self, write: Write, content: bytes) -> None:
        self._waiting.append((write, content))
        self._num_bytes += len(content)

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._waiting)

    def drain(self) -> None:
        """Wait until all is written, as long as somebody reads it."""
        with self._changed:
            for write in list(self._left_out):
                self._say_left_out(write)
            self._changed.notify_all()
            seen, since = self._num_written, time.monotonic()
            while self._waiting and time.monotonic() - since < PATIENCE_S:
                self._changed.wait(0.1)
                if self._num_written != seen:
                    seen, since = self._num_written, time.monotonic()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                write, content = self._waiting[0]
            write(content)
            with self._changed:
                self._waiting.popleft()  # only now: until then it is not written
                self._num_bytes -= len(content)
                self._num_written += 1
                self._changed.notify_all()
