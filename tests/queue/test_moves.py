"""Every change of a job's state beside every other, under all schedules, and killed at every call to the file system.

By default pairs are preempted once, and every operation is killed alone and beside a look of another process: some
21,000 schedules. With `ACCEL_TRAIN_THOROUGH_TESTS=1`, as `make chaos` sets it, all pairs are preempted twice and
killed, and triples preempted twice, on every kind of file system: some 400,000, in about half an hour.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from faults.interleave import FileSystem
from faults.transitions import ARRIVED_BY_NAME, BY_NAME, Check

THOROUGH = bool(os.environ.get("ACCEL_TRAIN_THOROUGH_TESTS"))
pytestmark = pytest.mark.timeout(3600 if THOROUGH else 600)
SYSTEMS = {
    "local disk": {},
    "no RENAME_NOREPLACE": {"has_noreplace": False},
    "no hard links": {"has_noreplace": False, "has_links": False},
    "two disks": {"is_one": False},
    "two disks, no RENAME_NOREPLACE": {"is_one": False, "has_noreplace": False},
}
# A link that reports an error may be done, and the job have moved on from there.
FAILING = {
    f"{'NFS' if tells else 'sshfs'}, a link that is {failing} fails": {
        "has_noreplace": False,
        "tells_files": tells,
        "failing_links": failing,
    }
    for tells in (True, False)
    for failing in ("done", "not done")
}
# What links a job to a place, and what may become of it there, by default.
LINKING = BY_NAME if THOROUGH else ("add", "release", "retry", "put back", "fail", "look")
NEXT = ARRIVED_BY_NAME if THOROUGH else ("claim it", "run and rm it", "rm it", "retry it")
PAIRS = list(combinations_with_replacement(BY_NAME, 2))
# What of one job may happen at one moment, by its runner, another one, and a person.
TRIPLES = [
    ("add", "add another", "put back"),
    ("add", "put back", "claim"),
    ("add", "release", "retry"),
    ("add", "rm pending", "put back"),
    ("add --force", "hold", "put back"),
    ("put back", "take over", "finish"),
    ("hold", "refuse", "claim"),
    ("retry", "move failed", "rm failed"),
    ("release", "cancel held", "hold"),
    ("move", "claim", "add"),
    ("fail", "retry", "add"),
    ("look", "release", "add"),
]


@pytest.fixture
def root() -> Iterator[Path]:
    """In memory, where that is possible: the checks make a million calls."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="accel-train-moves-", dir=memory if os.access(memory, os.W_OK) else None))
    for name in ("one", "other"):
        (folder / name).mkdir()
    yield folder
    shutil.rmtree(folder)


def losses(names: tuple[str, ...], system: FileSystem, preemptions: int, kills: int = 0) -> list[str]:
    check = Check([{**BY_NAME, **ARRIVED_BY_NAME}[name] for name in names], system)
    found = ((choices, wrong) for choices, wrong in check.losing(preemptions, kills) if wrong is not None)
    return [f"{' | '.join(names)}: {wrong}, by {choices}" for choices, wrong in found]


@pytest.mark.parametrize("kind", SYSTEMS)
def test_no_two_changes_of_state_at_once_lose_or_double_a_job(root: Path, kind: str) -> None:
    system = FileSystem(root, **SYSTEMS[kind])
    pairs = PAIRS if THOROUGH or kind == "no RENAME_NOREPLACE" else [pair for pair in PAIRS if kind in _matters(pair)]
    assert [loss for names in pairs for loss in losses(names, system, 2 if THOROUGH else 1)] == []


@pytest.mark.parametrize("kind", SYSTEMS)
def test_a_change_of_state_that_is_killed_anywhere_loses_and_doubles_nothing(root: Path, kind: str) -> None:
    system = FileSystem(root, **SYSTEMS[kind])
    alone = [loss for name in BY_NAME for loss in losses((name,), system, 0, 1)]
    pairs = PAIRS if THOROUGH else [pair for pair in PAIRS if "look" in pair and kind in _matters(pair)]
    assert alone + [loss for names in pairs for loss in losses(names, system, 0, 1)] == []


@pytest.mark.parametrize("kind", SYSTEMS if THOROUGH else ["no RENAME_NOREPLACE"])
def test_no_three_changes_of_state_at_once_lose_or_double_a_job(root: Path, kind: str) -> None:
    system = FileSystem(root, **SYSTEMS[kind])
    preemptions = 2 if THOROUGH else 1
    assert [loss for names in TRIPLES for loss in losses(names, system, preemptions)] == []


@pytest.mark.parametrize("kind", FAILING if THOROUGH else [kind for kind in FAILING if "is done" in kind])
def test_a_link_that_reports_an_error_doubles_no_job_wherever_it_has_gone(root: Path, kind: str) -> None:
    system, preemptions = FileSystem(root, **FAILING[kind]), 2 if THOROUGH else 1
    pairs = [(linking, following) for linking in LINKING for following in NEXT]
    assert [loss for names in pairs for loss in losses(names, system, preemptions)] == []


def _matters(pair: tuple[str, ...]) -> tuple[str, ...]:
    """The file systems on which a pair is tried by default."""
    moves = any(name.startswith("move") for name in pair)
    return ("two disks", "two disks, no RENAME_NOREPLACE") if moves else ("local disk", "no hard links")
