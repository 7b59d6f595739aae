"""The keys of a terminal, one by one, as they are pressed."""

import os
import re
import select
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

# What terminals send for keys that are no letters (xterm's control sequences; the forms of other modes and of the Linux
# console too).
_SEQUENCE = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]")
_NAMES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\b": "backspace",
    b"\x15": "clear",
}


class Keys:
    """The keys of the terminal behind a descriptor; none where that is no terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_open = os.isatty(descriptor)
        self._before: list[Any] | None = None

    def begin(self) -> None:
        """From now on keys come without Enter, and are not shown. Ctrl-C and Ctrl-Z are signals as ever."""
        if self._is_open:
            self._before = termios.tcgetattr(self._descriptor)
            changed = [*self._before]
            changed[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, changed)

    def end(self) -> None:
        """The terminal is as it was before."""
        if self._before is not None:
            with suppress(termios.error):  # it has gone
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> list[str]:
        """What is pressed within so many seconds, as soon as something is: letters as they are, other keys by name."""
        if not self._is_open:
            time.sleep(seconds)
            return []
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return []
        pressed = os.read(self._descriptor, 1024)
        self._is_open = bool(pressed)  # the terminal has gone
        return list(named(pressed))


def named(pressed: bytes) -> Iterator[str]:
    """The keys that a terminal has sent."""
    while pressed:
        if found := _SEQUENCE.match(pressed):
            pressed = pressed[found.end() :]
            if name := _NAMES.get(found[0]):
                yield name
        elif name := _NAMES.get(pressed[:1]):
            pressed = pressed[1:]
            yield name
        else:
            text = pressed.partition(b"\x1b")[0]
            pressed = pressed[len(text) :]
            for part in re.split(rb"([\r\n\x7f\b\x15])", text):
                yield from [_NAMES[part]] if part in _NAMES else filter(str.isprintable, part.decode(errors="ignore"))
