"""The right to put a file at a name, where there are neither hard links nor renames that replace nothing."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from accel_trainer.core import place_lock
from accel_trainer.core.lease import Owner
from accel_trainer.core.place_lock import place, remove_left
from accel_trainer.queue.layout import QueuePaths


@pytest.fixture
def running(tmp_path: Path) -> Path:
    (tmp_path / "running").mkdir()
    return tmp_path / "running"


def claimed(folder: Path, token: str) -> Path:
    path = folder / f"job@host.{token}-to-done.json"
    path.write_text(token)
    return path


def dead_token() -> str:
    program = "from accel_trainer.core.lease import Owner; print(Owner.new().token)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.strip()


def hold_right(source: Path) -> Path:
    """As a process that stops there: its file in the folder that is the right to `job.json`."""
    lock = source.parent / f".{source.parent.name}.job.json.placing"
    lock.mkdir()
    return source.rename(lock / source.name)


def test_the_right_of_a_dead_process_is_taken_at_once_and_its_file_returned(running: Path) -> None:
    token = dead_token()
    hold_right(claimed(running, token))
    ours, began = claimed(running, Owner.new().token), time.monotonic()
    place(ours, running / "job.json", ours.lstat())
    assert time.monotonic() - began < place_lock.PATIENCE_S / 2
    assert (running / f"job@host.{token}-to-done.json").read_text() == token
    assert sorted(path.suffix for path in running.iterdir()) == [".json", ".json"]


def test_who_was_suspended_with_the_right_replaces_nothing_when_it_goes_on(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_lock, "PATIENCE_S", 0.1)
    first, second = claimed(running, Owner.new().token), claimed(running, Owner.new().token)
    open_file, target = os.open, running / "job.json"

    def suspended(path: Path, flags: int, mode: int) -> int:
        """The first one has taken the name and does nothing for long; then another takes its empty file, and places
        its own."""
        descriptor = open_file(path, flags, mode)
        monkeypatch.setattr(os, "open", open_file)
        target.rename(running / "taken.json")
        place(second, target, second.lstat())
        return descriptor

    content = second.read_text()
    monkeypatch.setattr(os, "open", suspended)
    with pytest.raises(FileExistsError):
        place(first, target, first.lstat())
    assert target.read_text() == content
    assert first.exists()


def test_what_killed_processes_leave_of_rights_is_removed_and_jobs_stay(running: Path) -> None:
    token = dead_token()
    inside = hold_right(claimed(running, token))
    (inside.parent / f".job.json.{token}.tmp").touch()
    for owner in (token, Owner.new().token):
        (running / f".{owner}.own.placing").mkdir()
    (running / ".queue.other.json.placing").mkdir()
    remove_left(running)
    assert [path.name for path in inside.parent.iterdir()] == [inside.name]
    assert sorted(running.iterdir()) == sorted([inside.parent, running / f".{owner}.own.placing"])


def test_a_right_that_a_network_drive_calls_stale_has_gone(running: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = claimed(running, Owner.new().token)
    lock, list_folder = hold_right(job).parent, os.listdir

    def stale_once(path: Path) -> list[str]:
        """The client knows the folder, the server has it no more: the file in it is where it was."""
        if path == lock and lock.exists():
            (lock / job.name).rename(job)
            lock.rmdir()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "listdir", stale_once)
    queue = QueuePaths(running.parent)
    assert [claim.path for claim in queue.claims()] == [job]
    hold_right(job)
    remove_left(running)
    assert [claim.path for claim in queue.claims()] == [job]


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be one for a while, in a folder that everybody may use."""
    monkeypatch.chdir(folder)  # what is above may be private
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("call", ["chown", "chmod"])
def test_others_remove_what_a_kill_leaves_before_a_right_is_open_to_them(
    running: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    running.chmod(0o777)
    job = claimed(running, token := Owner.new().token)

    def killed(*args: object, **given: object) -> None:
        raise Killed

    def as_dead(number: str) -> bool:
        return True

    monkeypatch.setattr(os, call, killed)
    before = os.umask(0o077)
    try:
        with pytest.raises(Killed):
            place(job, running / "job.json", job.lstat())
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in running.glob(".*")] == [0o700]
    monkeypatch.setattr(place_lock, "is_dead_token", as_dead)
    with another_user(running, monkeypatch):
        remove_left(Path())
        assert [path.name for path in Path().iterdir()] == [job.name]
    assert job.read_text() == token


def test_a_right_is_open_to_the_group_and_others_of_its_folder_whatever_the_umask(
    running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From before the job is in it, so that nobody is kept from it by a kill."""
    running.chmod(0o775)
    if os.geteuid() == 0:
        os.chown(running, -1, 65534)
    job, seen = claimed(running, Owner.new().token), []
    rename_unique = place_lock.rename_unique

    def noted(source: Path, target: Path) -> bool:
        about = target.parent.stat()
        seen.append((about.st_mode & 0o777, about.st_gid))
        return rename_unique(source, target)

    monkeypatch.setattr(place_lock, "rename_unique", noted)
    before = os.umask(0o077)
    try:
        place(job, running / "job.json", job.lstat())
    finally:
        os.umask(before)
    assert seen == [(0o775, running.stat().st_gid)]
