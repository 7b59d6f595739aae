"""Every two changes of a job's state beside each other, under all schedules: see `faults.move_schedules`."""

from pathlib import Path

import pytest
from faults.interleave import FileSystem
from faults.move_schedules import PAIRS, SYSTEMS, THOROUGH, TIMEOUT_S, losses, matters

pytestmark = pytest.mark.timeout(TIMEOUT_S)


@pytest.mark.parametrize("kind", SYSTEMS)
def test_no_two_changes_of_state_at_once_lose_or_double_a_job(root: Path, kind: str) -> None:
    system = FileSystem(root, **SYSTEMS[kind])
    pairs = PAIRS if THOROUGH or kind == "no RENAME_NOREPLACE" else [pair for pair in PAIRS if kind in matters(pair)]
    assert [loss for names in pairs for loss in losses(names, system, 2 if THOROUGH else 1)] == []
