"""What a model of clocked.py has noted, a line for each forward pass."""

from pathlib import Path
from typing import NamedTuple


class Note(NamedTuple):
    """A forward pass: when it began, in seconds since 1970; whether it was a training step; of how many images."""

    time: float
    is_step: bool
    num_images: int

    def line(self) -> str:
        return f"{self.time!r} {int(self.is_step)} {self.num_images}\n"


def notes(clock: Path) -> list[Note]:
    """All that was noted, in its order."""
    words = (line.split() for line in clock.read_text().splitlines())
    return [Note(float(when), is_step == "1", int(count)) for when, is_step, count in words]


def steps(clock: Path) -> list[float]:
    """When the steps were."""
    return [note.time for note in notes(clock) if note.is_step]
