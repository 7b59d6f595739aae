"""Published raw numbers and what was published from them. They lie beside the project; nothing of them is in it."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import REPOSITORY

ORACLES = REPOSITORY.parent / "shared" / "oracles"
NEEDED = pytest.mark.skipif(not ORACLES.is_dir(), reason=f"published raw data are not in {ORACLES}")


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a table, cells as texts."""
    path = ORACLES / name
    opened: Callable[..., object] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="") as file:  # type: ignore[attr-defined]
        return list(csv.DictReader(file))


def human(name: str) -> Path:
    """People's trials of a data set."""
    return ORACLES / "error_consistency" / "human" / f"{name}.csv.gz"


def half_unit(text: str) -> float:
    """Half of the last printed digit."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2]) + 1e-9
