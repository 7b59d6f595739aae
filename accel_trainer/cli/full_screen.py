"""A terminal as a whole: what is drawn on it is gone afterwards, and it is as before, however that ends."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from accel_trainer.cli.app import SIGNALED
from accel_trainer.cli.keys import Keys

# The second screen, without a cursor; and back (xterm's private modes 1049 and 25).
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
# A terminal that knows mode 2026 shows what is between these at once; others skip them.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def can_be_filled() -> bool:
    """Whether standard output is a terminal with a cursor that moves."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def screen_size() -> tuple[int, int]:
    """Columns and lines of the terminal, now."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        size = shutil.get_terminal_size()
    return (size.columns or 80, size.lines or 24)


class FullScreen:
    """Draws whole screens: nothing is cleared first, so nothing flickers."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._drawn: Sequence[str] = ()

    def enter(self) -> None:
        """Go to the second screen."""
        self._drawn = ()
        self._keys.begin()
        _write(_ENTER)

    def leave(self) -> None:
        """Go back to what was there before."""
        _write(_LEAVE)
        self._keys.end()

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, none of which is wider than the screen, and nothing else."""
        if lines != self._drawn:
            self._drawn = lines
            _write(f"{_BEGIN}\x1b[H" + "\r\n".join(f"\x1b[2K{line}" for line in lines) + f"\x1b[J{_END}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def full_screen(keys: Keys) -> Iterator[FullScreen]:
    """The terminal for this context, and its keys. SIGTERM and SIGHUP end it as SystemExit; Ctrl-Z gives the shell its
    screen back."""
    screen = FullScreen(keys)

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(SIGNALED + number)

    def suspend(number: int, frame: FrameType | None) -> None:
        screen.leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns when the shell has it go on
        signal.signal(signal.SIGTSTP, suspend)
        screen.enter()

    handlers = dict.fromkeys(_ENDING, end) | {signal.SIGTSTP: suspend}
    heard = {number: handler for number, handler in handlers.items() if signal.getsignal(number) is not signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    try:
        screen.enter()
        yield screen
    finally:
        screen.leave()
        for number, handler in before.items():
            signal.signal(number, handler)
