"""Pairs of changes of a job's state on kinds of file systems, and the schedules that `interleave` tries of them.

By default pairs are preempted once, and every operation is killed alone and beside a look of another process: some
21,000 schedules. With `ACCEL_TRAIN_THOROUGH_TESTS=1`, as `make chaos` sets it, all pairs are preempted twice and
killed, and triples preempted twice, on every kind of file system: some 400,000, in about half an hour.
"""

import os
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

from faults.interleave import FileSystem
from faults.transitions import ARRIVED_BY_NAME, BY_NAME, Check

THOROUGH = bool(os.environ.get("ACCEL_TRAIN_THOROUGH_TESTS"))
TIMEOUT_S = 3600 if THOROUGH else 600
SYSTEMS: dict[str, dict[str, Any]] = {
    "local disk": {},
    "no RENAME_NOREPLACE": {"has_noreplace": False},
    "no hard links": {"has_noreplace": False, "has_links": False},
    "two disks": {"is_one": False},
    "two disks, no RENAME_NOREPLACE": {"is_one": False, "has_noreplace": False},
}
PAIRS = list(combinations_with_replacement(BY_NAME, 2))


def losses(names: Sequence[str], system: FileSystem, preemptions: int, kills: int = 0) -> list[str]:
    """What is wrong after some schedule of these operations, and which that is."""
    check = Check([{**BY_NAME, **ARRIVED_BY_NAME}[name] for name in names], system)
    found = ((choices, wrong) for choices, wrong in check.losing(preemptions, kills) if wrong is not None)
    return [f"{' | '.join(names)}: {wrong}, by {choices}" for choices, wrong in found]


def matters(pair: Sequence[str]) -> tuple[str, ...]:
    """The file systems on which a pair is tried by default."""
    moves = any(name.startswith("move") for name in pair)
    return ("two disks", "two disks, no RENAME_NOREPLACE") if moves else ("local disk", "no hard links")
