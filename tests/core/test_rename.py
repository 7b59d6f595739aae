"""Renames that replace nothing, on file systems of every kind."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from accel_trainer.core import exclusive_move, rename
from accel_trainer.core.disk_calls import retrying
from accel_trainer.core.exclusive_move import move_own, replace_own
from accel_trainer.core.rename import create_new, rename_noreplace, rename_unique


def refusing(number: int) -> Callable[..., None]:
    def refuse(source: Path, target: Path, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), str(source))

    return refuse


@pytest.fixture(params=["renameat2", "link", "neither"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a file is moved: what comes before is refused, as by NFS, and by file systems without hard links."""
    if request.param != "renameat2":
        monkeypatch.setattr(exclusive_move, "rename_noreplace", refusing(errno.EINVAL))
    if request.param == "neither":
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    return str(request.param)


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.usefixtures("way")
def test_a_file_moves_whole_and_keeps_its_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    os.utime(tmp_path / "a", ns=(1, 2))
    move_own(tmp_path / "a", tmp_path / "b")
    assert files(tmp_path) == {"b": "a"}
    assert (tmp_path / "b").stat().st_mtime_ns == 2


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("content", ["b", ""])
def test_a_move_replaces_no_file_not_even_an_empty_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text(content)
    with pytest.raises(FileExistsError):
        move_own(tmp_path / "a", tmp_path / "b")
    assert files(tmp_path) == {"a": "a", "b": content}


@pytest.mark.usefixtures("way")
def test_a_move_replaces_no_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        move_own(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").is_symlink()
    assert (tmp_path / "a").exists()


@pytest.mark.usefixtures("way")
def test_a_move_into_a_folder_that_is_gone_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(FileNotFoundError):
        move_own(tmp_path / "a", tmp_path / "folder" / "b")
    assert files(tmp_path) == {"a": "a"}


@pytest.mark.usefixtures("way")
def test_a_file_that_replaces_another_leaves_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    replace_own(tmp_path / "a", tmp_path / "b")
    assert files(tmp_path) == {"b": "a"}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_no_hard_link_can_be_made_the_name_is_taken_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As of a file of somebody else, or between folders of AFS."""
    monkeypatch.setattr(exclusive_move, "rename_noreplace", refusing(errno.EINVAL))
    monkeypatch.setattr(os, "link", refusing(number))
    (tmp_path / "a").write_text("a")
    move_own(tmp_path / "a", tmp_path / "b")
    assert files(tmp_path) == {"b": "a"}


def test_a_link_that_succeeds_and_reports_that_the_name_is_taken_is_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does when the answer is lost and the client asks again."""
    link = os.link

    def lost_answer(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(exclusive_move, "rename_noreplace", refusing(errno.EINVAL))
    monkeypatch.setattr(os, "link", lost_answer)
    (tmp_path / "a").write_text("a")
    move_own(tmp_path / "a", tmp_path / "b")
    assert files(tmp_path) == {"b": "a"}


def test_a_rename_whose_answer_is_lost_is_a_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost_answer(source: Path, target: Path) -> None:
        rename_noreplace(source, target)
        rename_noreplace(source, target)

    monkeypatch.setattr(exclusive_move, "rename_noreplace", lost_answer)
    (tmp_path / "a").write_text("a")
    move_own(tmp_path / "a", tmp_path / "b")
    assert files(tmp_path) == {"b": "a"}


def test_a_rename_to_a_name_of_ones_own_says_whether_the_file_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    assert rename_unique(tmp_path / "a", tmp_path / "b")
    assert not rename_unique(tmp_path / "a", tmp_path / "c")
    assert files(tmp_path) == {"b": "a"}


def test_a_target_that_the_client_believes_missing_is_found_in_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network drive's client remembers for a while that there was no such name."""
    (tmp_path / "a").write_text("a")
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    assert rename.is_there(tmp_path / "a")
    assert not rename.is_there(tmp_path / "b")


def test_a_file_that_the_client_believes_missing_for_a_while_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("a")
    lstat, answers = os.lstat, iter([False, False, True])

    def forgetful(path: Path) -> os.stat_result:
        if next(answers):
            return lstat(path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    monkeypatch.setattr(rename, "POLL_S", 0.0)
    monkeypatch.setattr(os, "lstat", forgetful)
    assert rename.attributes(tmp_path / "a").st_size == 1


@pytest.mark.parametrize("has_come", [False, True])
def test_a_file_that_is_gone_is_not_refused_though_another_has_its_name_by_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_come: bool
) -> None:
    def overtaken(source: Path, target: Path) -> None:
        if has_come:
            source.write_text("another")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))

    monkeypatch.setattr(Path, "rename", overtaken)
    assert not rename_unique(tmp_path / "a", tmp_path / "b")


def test_a_creation_that_another_client_has_won_is_that_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(create_new(tmp_path / "a"))
    with pytest.raises(FileExistsError):
        create_new(tmp_path / "a")

    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileExistsError):
        create_new(tmp_path / "a")
    with pytest.raises(PermissionError):
        create_new(tmp_path / "b")


def test_a_link_that_is_done_and_reports_an_error_is_not_made_again_once_the_file_was_taken_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, taken = tmp_path / "own", tmp_path / "job.json", tmp_path / "claimed"
    source.write_text("{}")
    link = os.link

    def done_and_taken_on(*paths: Path) -> None:
        link(*paths)
        target.rename(taken)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(exclusive_move, "rename_noreplace", refusing(errno.EINVAL))
    monkeypatch.setattr(os, "link", done_and_taken_on)
    with retrying(10.0):
        move_own(source, target)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["claimed"]
