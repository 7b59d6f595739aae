"""Files that may be anything: read where they are files of a sensible size, refused where not; never waited for."""

from pathlib import Path

import pytest
from helpers import plant_no_file

from accel_trainer.core.files import read_bytes, read_json, read_text


def test_a_file_is_read_as_far_as_it_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 0 KiB"):
        read_bytes(tmp_path / "file", 4)


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**28)
    with pytest.raises(OSError, match="larger than 1 KiB"):
        read_bytes(tmp_path / "sparse", 1024)


def test_links_are_followed_where_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 5) == b"1"
    with pytest.raises(OSError, match="symbolic links"):
        read_bytes(tmp_path / "link", 5, follow_links=False)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a pipe"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "link to a pipe":
        plant_no_file(tmp_path / "pipe", "pipe")
        path.symlink_to("pipe")
    else:
        plant_no_file(path, kind)
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(path, 2**20)


def test_text_that_is_none_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\xff")
    assert read_text(tmp_path / "file", 5) == "a\ufffd"


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"{", b"", b"9" * 5000])
def test_json_that_cannot_be_read_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - of json, of Unicode or ours
        read_json(tmp_path / "file")
