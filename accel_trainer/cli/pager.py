"""Long texts at a terminal, by the program that a person reads such with."""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from accel_trainer.cli.full_screen import screen_size
from accel_trainer.core.blocks import start_of_last_lines
from accel_trainer.core.child_environment import child_environment
from accel_trainer.core.text import printable_log

USUAL = "less -R"


def is_longer_than_screen(path: Path, position: int) -> bool:
    """Whether a file has more lines from a position on than the terminal. Raises OSError."""
    return start_of_last_lines(path, screen_size()[1] - 1) > position


def show_paged(parts: Iterable[str]) -> bool:
    """Show a text by $PAGER, or `less -R`, until the reader has read enough; False where there is no such program."""
    try:
        command = shlex.split(os.environ.get("PAGER", USUAL))
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=child_environment()) if command else None
    except (OSError, ValueError):
        return False
    if pager is None or pager.stdin is None:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pager's
    try:
        with pager.stdin as reader:
            for part in parts:
                reader.write(printable_log(part).encode(errors="backslashreplace"))
    except BrokenPipeError:
        pass  # it was left before the end
    finally:
        pager.wait()
        signal.signal(signal.SIGINT, before)
    return True
