"""Colors on a terminal, by what a word means. The word always says it too."""

import os
import sys
from collections.abc import Callable
from typing import TextIO

# Of the states of jobs, by the codes of ANSI (ECMA-48, 8.3.117), which every theme of a terminal has in its own way.
OF_STATES = {"running": "36", "held": "33", "failed": "31", "canceled": "35", "done": "32"}
BOLD, FAINT, REVERSED = "1", "2", "7"


def has_colors(stream: TextIO | None = None) -> bool:
    """Whether a stream is a terminal that shows colors, and nobody wants none (https://no-color.org)."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def colored(text: str, code: str | None, *, wanted: bool) -> str:
    """A text in a color, or as it is where no color is wanted, or there is none for it."""
    return f"\x1b[{code}m{text}\x1b[0m" if wanted and code is not None else text


def state_painter(*, wanted: bool) -> Callable[[str, str], str]:
    """Colors the cells of a table that have the state of a job (`paint` of `tables.table`)."""

    def paint(column: str, cell: str) -> str:
        return colored(cell, OF_STATES.get(cell.strip()) if column == "state" else None, wanted=wanted)

    return paint
