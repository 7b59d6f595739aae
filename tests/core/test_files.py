"""Files appear whole or not at all."""

import errno
import threading
from pathlib import Path

import pytest
from helpers import file_names

from accel_trainer.core.files import write_atomic


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
