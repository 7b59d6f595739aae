"""Changes of a job's state that are killed at every call to the file system, or meet two others, or a link that reports
an error: see `faults.move_schedules`."""

from pathlib import Path

import pytest
from faults.interleave import FileSystem
from faults.move_schedules import PAIRS, SYSTEMS, THOROUGH, TIMEOUT_S, losses, matters
from faults.transitions import ARRIVED_BY_NAME, BY_NAME

pytestmark = pytest.mark.timeout(TIMEOUT_S)
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


@pytest.mark.parametrize("kind", SYSTEMS)
def test_a_change_of_state_that_is_killed_anywhere_loses_and_doubles_nothing(root: Path, kind: str) -> None:
    system = FileSystem(root, **SYSTEMS[kind])
    alone = [loss for name in BY_NAME for loss in losses((name,), system, 0, 1)]
    pairs = PAIRS if THOROUGH else [pair for pair in PAIRS if "look" in pair and kind in matters(pair)]
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
