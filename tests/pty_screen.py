"""A program on a terminal of its own: what is sent to it, and what a person sees there.

The terminal is a pty behind pyte, which draws what arrives as xterm would.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pyte

ALTERNATE = 1049 << 5  # as pyte counts private modes


class PtyScreen:
    """A process on a pty of some columns and lines. `raw`: all that it has written."""

    def __init__(
        self, command: Sequence[str], size: tuple[int, int] = (80, 24), cwd: Path | None = None, **environment: str
    ) -> None:
        self.screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, slave = os.openpty()
        _set_size(slave, size)
        self.modes_before = termios.tcgetattr(slave)
        env = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment}
        for name in ("COLUMNS", "LINES"):
            env.pop(name, None)
        self._slave = slave  # kept open, to look at its modes afterwards
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env=env, preexec_fn=_own_terminal
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without the spaces at the end of each line."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines).rstrip("\n") + "\n"

    @property
    def modes(self) -> list[Any]:
        """The modes of the terminal, as termios has them."""
        return termios.tcgetattr(self._slave)

    def read(self, seconds: float) -> bytes:
        """Take what is written within so many seconds, and draw it."""
        until, got = time.monotonic() + seconds, b""
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([self._master], [], [], left)
            if ready:
                part = os.read(self._master, 65536)
                self._stream.feed(part)
                got += part
        self.raw += got
        return got

    def until(self, condition: Callable[[str], bool] | str, seconds: float = 30.0) -> str:
        """Wait for a text on the screen, or for what is to be true of it; what is there then."""
        until = time.monotonic() + seconds
        while not (condition in self.text if isinstance(condition, str) else condition(self.text)):
            assert time.monotonic() < until, f"waited in vain for {condition!r}; on the screen:\n{self.text}"
            self.read(0.05)
        return self.text

    def press(self, keys: str) -> None:
        """Send keys, as a terminal would."""
        os.write(self._master, keys.encode())

    def resize(self, size: tuple[int, int]) -> None:
        """Give the terminal another number of columns and lines."""
        self.screen.resize(columns=size[0], lines=size[1])
        _set_size(self._master, size)

    def end(self, seconds: float = 30.0) -> int:
        """Wait until the process has ended; its exit code."""
        until = time.monotonic() + seconds
        while (code := self.process.poll()) is None:
            assert time.monotonic() < until, f"still there; on the screen:\n{self.text}"
            self.read(0.05)
        self.read(0.1)
        return code


def _set_size(descriptor: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


if __name__ == "__main__":  # by hand: python pty_screen.py SECONDS COLUMNSxLINES COMMAND...
    columns, _, lines = sys.argv[2].partition("x")
    with PtyScreen(sys.argv[3:], (int(columns), int(lines))) as shown:
        shown.read(float(sys.argv[1]))
        print(shown.text)
