"""What the doctor finds on drives that misbehave, and on a real sshfs."""

from pathlib import Path

import pytest

from accel_trainer.doctor import client_trials, examination, filesystem_trials
from accel_trainer.doctor.findings import Finding, Grade

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(filesystem_trials, "NUM_ROUNDS", 15)
    monkeypatch.setattr(filesystem_trials, "LIMIT_S", 60.0)


def findings(folder: Path, other: Path | None = None) -> dict[str, Finding]:
    return dict(examination._queue_checks(folder, other))


@pytest.fixture
def queue(drive):
    (drive.path / "queue").mkdir()
    return "queue"


def test_a_drive_without_mischief_is_fine(mount, queue):
    one, other = mount("one"), mount("other")
    found = findings(one.folder / queue, other.folder / queue)
    # Where a file is replaced between the kernel's look-up and its open, libfuse itself says ESTALE: on a busy machine.
    stale = "Stale file handle" in found["rename"].message
    assert [name for name, finding in found.items() if finding.grade is not Grade.OK] == ["rename"] * stale, found
    assert "RENAME_NOREPLACE: Invalid argument" in found["moves"].message
    assert "locks are local" in found["locks of two"].message


def test_caches_are_measured_between_two_clients(mount, queue, monkeypatch):
    monkeypatch.setattr(client_trials, "LONGEST_CACHE_S", 20.0)
    one = mount("one")
    other = mount("other", attr_s=3, entry_s=3, negative_s=3, listing_s=3)
    found = findings(one.folder / queue, other.folder / queue)
    caches = found["caches"]
    assert caches.grade is Grade.WARNING
    assert "it remembers for 3 s" in caches.message or "it remembers for 4 s" in caches.message
    assert "dir_cache=no" in (caches.fix or "")
    assert "docs/machines.md" in (caches.fix or "")


def test_claims_that_only_the_listing_shows_are_named(mount, queue):
    one = mount("one", negative_s=30, lost_replies=1, lost_only="/claims/")
    found = findings(one.folder / queue)
    assert found["claims"].grade is Grade.WARNING, found["claims"]
    assert "answers are lost and names remembered: in 15 of 15 races" in found["claims"].message


def test_answers_that_are_lost_alone_do_no_harm(mount, queue):
    one = mount("one", lost_replies=1, lost_only="/claims/")
    found = findings(one.folder / queue)
    assert found["claims"].grade is Grade.OK, found["claims"]
    assert "renames succeeded and reported an error (No such file or directory)" in found["claims"].message


def test_errors_of_reading_what_is_replaced_are_named_as_such(mount, queue):
    one = mount("one")
    one.obey(error="ESTALE", ops=["open"], path="/rename/target", rate=0.8)  # the kernel asks twice
    found = findings(one.folder / queue)
    assert found["rename"].grade is Grade.WARNING, found["rename"]
    assert "Stale file handle" in found["rename"].message


def test_a_server_whose_clock_is_off_is_named(mount, queue):
    found = findings(mount("one", clock_s=100).folder / queue)
    assert found["clock"].grade is Grade.WARNING
    assert "s ahead of this machine's" in found["clock"].message


def test_another_folder_is_not_taken_for_the_same(mount, queue, tmp_path, monkeypatch):
    monkeypatch.setattr(client_trials, "LONGEST_CACHE_S", 0.5)
    found = findings(mount("one").folder / queue, tmp_path)
    assert found["other client"].grade is Grade.PROBLEM
    assert "claims of two" not in found


def test_the_caches_of_sshfs_are_found_and_its_options_help(mount_sshfs):
    one, other = mount_sshfs("one"), mount_sshfs("other")
    fresh = mount_sshfs("fresh", "dir_cache=no", "attr_timeout=0", "entry_timeout=0")
    (one.server / "queue").mkdir()
    scratch = one.folder / "queue"
    remembered = client_trials.caches(made(scratch / "a"), shown(other.folder / "queue" / "a"))
    assert remembered.grade is Grade.WARNING
    assert "it remembers for 2" in remembered.message
    seen = client_trials.caches(made(scratch / "b"), shown(fresh.folder / "queue" / "b"))
    assert seen.grade is Grade.OK, seen
    created = filesystem_trials.exclusive_creation(made(scratch / "c"), shown(fresh.folder / "queue" / "c"))
    assert created.grade is Grade.OK, created


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def shown(folder: Path) -> Path:
    client_trials._wait_for(folder)
    return folder
