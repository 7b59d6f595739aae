"""Files appear whole or not at all."""

import errno
import threading
from pathlib import Path

import pytest
from helpers import dead_token, file_names, plant_no_file

from accel_trainer.core.files import (
    append_text,
    is_private_to_us,
    remove_stale_temp_files,
    replacing,
    write_atomic,
    write_new,
)
from accel_trainer.core.outage import UnsuitableFile


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("content", ["naïve\n", b"\x00\xff"])
def test_a_written_file_has_its_content_and_nothing_lies_beside_it(
    tmp_path: Path, content: str | bytes, durable: bool
) -> None:
    for old in (None, "old and longer than the new one"):
        if old is not None:
            (tmp_path / "file").write_text(old)
        write_atomic(tmp_path / "file", content, durable=durable)
        assert (tmp_path / "file").read_bytes() == (content if isinstance(content, bytes) else content.encode())
        assert file_names(tmp_path) == ["file"]


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    (tmp_path / "file").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*(("os.fsync", fail) if failing == "write" else (Path, "replace", fail)))
    with pytest.raises(OSError, match=r"No space left on device: '/.*/file'"):
        write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert file_names(tmp_path) == ["file"]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", {"a" * 100_000, "b" * 100_000}
    path.write_text("a" * 100_000)
    done = threading.Event()

    def write() -> None:
        for i in range(100):
            write_atomic(path, "ab"[i % 2] * 100_000, durable=False)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_text())
    writer.join()
    assert seen <= contents


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def write_folder(path: Path, content: str) -> None:
    with replacing(path, durable=True) as aside:
        aside.mkdir()
        (aside / "inside").mkdir()
        (aside / "inside/file").write_text(content)


@pytest.mark.parametrize("old", ["nothing", "a folder", "a file", "a link to a folder"])
def test_a_folder_written_aside_takes_the_place_of_what_was_there(place: Path, old: str) -> None:
    path, elsewhere = place / "folder", place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    match old:
        case "a folder":
            write_folder(path, "old")
            (path / "older").touch()
        case "a file":
            path.touch()
        case "a link to a folder":
            path.symlink_to(elsewhere)
    write_folder(path, "new")
    assert (path / "inside/file").read_text() == "new"
    assert file_names(place) == ["elsewhere/kept", "folder/inside/file"]
    assert sorted(place.iterdir()) == [elsewhere, path]


@pytest.mark.parametrize(
    ("failing", "left"), [("os.fsync", 1), ("pathlib.Path.write_text", 1), ("pathlib.Path.replace", 0)]
)
def test_a_folder_that_cannot_be_written_leaves_nothing_half_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, failing: str, left: int
) -> None:
    """Only what fails between the removal of the old one and the rename leaves neither."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = place / "folder"
    write_folder(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(OSError, match="No space left"):
            write_folder(path, "new")
    assert list(place.iterdir()) == [path][:left]
    assert not left or (path / "inside/file").read_text() == "old"


def test_folders_of_a_dead_process_are_removed_and_those_of_others_kept(place: Path) -> None:
    for name in (f".folder.{dead_token()}.tmp", ".folder.no-token.tmp"):
        (place / name / "inside").mkdir(parents=True)
    remove_stale_temp_files(place)
    assert [path.name for path in place.iterdir()] == [".folder.no-token.tmp"]


def test_names_as_long_as_a_file_system_takes_are_written(place: Path) -> None:
    for name in ("n" * 255, "\N{GRINNING FACE}" * 63):
        write_atomic(place / name, "content")
        assert (place / name).read_text() == "content"


def test_a_file_whose_replacement_succeeds_and_reports_an_error_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does when the answer to a rename is lost and the client asks again."""
    replace = Path.replace

    def lost_answer(self: Path, target: Path) -> Path:
        replace(self, target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", lost_answer)
    for content in ("one", "two"):
        write_atomic(tmp_path / "file", content)
        assert (tmp_path / "file").read_text() == content


def test_a_new_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"two")
    assert file_names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"one"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_nothing_is_written_to_what_is_no_file_and_nobody_waits_for_it(tmp_path: Path, kind: str) -> None:
    plant_no_file(tmp_path / "log", kind)
    with pytest.raises(UnsuitableFile, match="symbolic links" if kind == "device" else "not a regular file"):
        append_text(tmp_path / "log", "a line")


def test_a_private_file_is_known_by_its_owner_and_its_mode(tmp_path: Path) -> None:
    write_atomic(tmp_path / "ours", "", is_private=True)
    write_atomic(tmp_path / "everybodys", "")
    assert is_private_to_us(tmp_path / "ours")
    assert not is_private_to_us(tmp_path / "everybodys")
    assert file_names(tmp_path) == ["everybodys", "ours"]
