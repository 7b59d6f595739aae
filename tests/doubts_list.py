"""The list of what is doubted in docs/training.md, from the functions that doubt."""

import sys
from pathlib import Path

from accel_trainer.config.doubts import DOUBTS
from accel_trainer.core.text import with_part

MARKS = "<!-- doubts: begin (made by `make docs`) -->", "<!-- doubts: end -->"


def markdown() -> str:
    """A line for each of DOUBTS, in its order."""
    return "\n".join(f"- {' '.join((doubt.__doc__ or '').split())}" for doubt in DOUBTS)


def with_list(text: str) -> str:
    """A page with the list of today between its marks."""
    return with_part(text, MARKS, markdown())


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_list(page.read_text()))
