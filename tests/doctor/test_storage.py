"""What kind of file system the queue is on, what is free, and that nothing stays behind."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers import own_disk

from accel_trainer.core.lease import Owner
from accel_trainer.doctor import storage
from accel_trainer.doctor.findings import Grade
from accel_trainer.doctor.storage import Mount, assess_mount, mount_of
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

TERABYTES_GB = 1e6


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    store = QueueStore(tmp_path / "training_queue")
    store.create()
    return store.folder


# -- the folder itself ------------------------------------------------------------------------------------------------


def test_a_queue_answers_also_before_it_is_there(queue: Path) -> None:
    assert storage.responds(queue).grade is Grade.OK
    finding = storage.responds(queue / "not/yet")
    assert finding.grade is Grade.OK
    assert f"the checks below are of {queue}" in finding.message
    assert not (queue / "not").exists()


@pytest.mark.parametrize("kind", ["file", "below a file", "link to nowhere"])
def test_what_is_no_folder_is_a_problem(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "queue"
    if kind == "link to nowhere":
        path.symlink_to("nowhere")
    else:
        path.write_text("")
    finding = storage.responds(path / "below" if kind == "below a file" else path)
    assert finding.grade is Grade.PROBLEM
    assert finding.message == f"{path} is not a folder"


def test_a_file_system_that_does_not_answer_is_a_problem(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "existing_part", lambda path: time.sleep(60))
    monkeypatch.setattr(storage, "RESPONSE_LIMIT_S", 0.2)
    finding = storage.responds(queue)
    assert finding.grade is Grade.PROBLEM
    assert "no answer of another process within" in finding.message


def test_folders_of_one_file_system_are_good(queue: Path) -> None:
    assert storage.folders(queue).message == "all on one file system"
    (queue / "held").rmdir()
    assert storage.folders(queue).message == "3 of 4 exist"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_folders_that_are_none_are_a_problem(queue: Path, kind: str) -> None:
    running = queue / "running"
    running.rmdir()
    if kind == "link":
        running.symlink_to(queue / "done")
    else:
        running.write_text("")
    finding = storage.folders(queue)
    assert finding.grade is Grade.PROBLEM
    assert f"{running} is {'a symbolic link' if kind == 'link' else 'not a folder'}" in finding.message


def test_a_folder_on_another_file_system_is_a_problem(queue: Path) -> None:
    with own_disk(queue / "running", "size=64k"):
        assert "running is on another file system" in storage.folders(queue).message


def test_a_folder_without_permission_is_a_problem(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != queue / "done")
    finding = storage.folders(queue)
    assert (finding.grade, finding.message) == (Grade.PROBLEM, f"no permission to write in {queue / 'done'}")


# -- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "grade", "said"),
    [
        ("ext4", "rw,relatime", Grade.OK, "ext4, mounted at /q"),
        ("xfs", "rw", Grade.OK, "xfs"),
        ("lustre", "rw,flock", Grade.OK, "lustre"),
        ("something-new", "rw", Grade.OK, "something-new"),
        ("ext4", "ro,relatime", Grade.PROBLEM, "read-only"),
        ("nfs4", "rw,hard,vers=4.2", Grade.OK, "nfs4, mounted at /q (hard)"),
        ("nfs", "rw,hard,noac,local_lock=all", Grade.OK, "(hard, noac, local_lock=all)"),
        ("nfs4", "rw,soft,vers=4.2", Grade.PROBLEM, "a soft mount"),
        ("nfs4", "rw,softreval,hard", Grade.OK, "(hard)"),
        ("nfs4", "rw,hard,actimeo=3", Grade.OK, "(hard, actimeo=3)"),
        ("nfs4", "rw,hard,actimeo=600", Grade.WARNING, "for up to 600 s"),
        ("nfs4", "rw,hard,acdirmax=300", Grade.WARNING, "for up to 300 s"),
        ("tmpfs", "rw", Grade.WARNING, "lost when the machine is switched off"),
        ("overlay", "rw,lowerdir=/a", Grade.WARNING, "lost with the container"),
        ("cifs", "rw,soft", Grade.WARNING, "an SMB share"),
        ("vfat", "rw", Grade.WARNING, "names and time stamps are not kept"),
        ("fuse.sshfs", "rw", Grade.WARNING, "seen late"),
        ("fuse.s3fs", "rw", Grade.PROBLEM, "a rename copies"),
    ],
)
def test_kinds_of_file_systems_are_judged(kind: str, options: str, grade: Grade, said: str) -> None:
    finding = assess_mount(Mount("/q", kind, tuple(options.split(","))))
    assert finding.grade is grade
    assert said in finding.message


def test_a_folder_is_in_the_innermost_mount_and_of_several_in_the_last(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    mounts = [
        Mount("/", "ext4", ()),
        Mount(str(inner), "nfs", ()),
        Mount(str(inner), "tmpfs", ()),
        Mount(str(tmp_path), "xfs", ()),
        Mount(f"{inner}-too", "vfat", ()),
    ]
    found = mount_of(inner, mounts)
    assert found is not None
    assert found.kind == "tmpfs"
    (tmp_path / "link").symlink_to(inner)
    assert mount_of(tmp_path / "link", mounts) == found, "where a link leads counts"
    assert mount_of(tmp_path, mounts) == mounts[3]
    assert mount_of(Path("/"), mounts[1:]) is None


def test_real_mounts_of_this_machine_are_found(tmp_path: Path) -> None:
    with own_disk(tmp_path / "a disk", "size=64k") as disk:
        finding = storage.file_system(disk)
        assert (finding.grade, f"tmpfs, mounted at {disk}: memory" in finding.message) == (Grade.WARNING, True)
    with own_disk(tmp_path / "b", "ro,size=64k") as disk:
        assert "read-only" in storage.file_system(disk).message


# -- scratch ----------------------------------------------------------------------------------------------------------


def test_scratch_goes_with_all_that_is_in_it_whatever_happens(queue: Path) -> None:
    before = sorted(queue.rglob("*"))

    def interrupted() -> None:
        with storage.scratch_folder(queue) as scratch:
            (scratch / "a").mkdir()
            (scratch / "a/b").write_text("")
            assert QueueStore(queue).jobs(JobState.PENDING) == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(queue.rglob("*")) == before


def test_scratch_of_a_killed_doctor_goes_and_that_of_a_living_one_stays(queue: Path) -> None:
    code = "from accel_trainer.core.lease import Owner; print(Owner.new().token)"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    for token in (dead, Owner.new().token, "otherhost-1-2-3"):
        (queue / f"{storage.PREFIX}{token}/claims").mkdir(parents=True)
    with storage.scratch_folder(queue):
        pass
    left = [path.name for path in queue.glob(f"{storage.PREFIX}*")]
    assert len(left) == 2
    assert f"{storage.PREFIX}{dead}" not in left


# -- space ------------------------------------------------------------------------------------------------------------


def test_space_is_reported_and_little_of_it_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = storage.space(tmp_path / "not/yet", 0.0)
    assert finding.grade is Grade.OK
    assert finding.message.startswith(f"{tmp_path}: ")
    assert storage.space(tmp_path, TERABYTES_GB).grade is Grade.WARNING
    monkeypatch.setattr(storage, "FEW_FILES", 10**12)
    assert "but for only" in storage.space(tmp_path, 0.0).message
    assert list(tmp_path.glob("[!hw]*")) == []


def test_a_full_disk_is_a_problem(tmp_path: Path) -> None:
    with own_disk(tmp_path / "disk", "size=64k") as disk:
        finding = storage.space(disk, 0.0)
        assert finding.grade is Grade.PROBLEM
        assert finding.message == f"{disk} cannot be written: {os.strerror(errno.ENOSPC)}"
        assert not list(disk.iterdir())


def test_a_disk_that_can_only_be_read_is_a_problem(tmp_path: Path) -> None:
    with own_disk(tmp_path / "disk", "ro,size=8m") as disk:
        assert "Read-only file system" in storage.space(disk, 0.0).message


def test_a_place_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    assert "Not a directory" in storage.space(tmp_path / "models", 0.0).message


def test_an_unused_folder_for_temporary_files_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert storage.temporary(0.0).message.startswith(f"{tmp_path}: ")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    finding = storage.temporary(0.0)
    assert finding.grade is Grade.WARNING
    assert "nowhere' cannot be used" in finding.message

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert storage.temporary(0.0).grade is Grade.PROBLEM
