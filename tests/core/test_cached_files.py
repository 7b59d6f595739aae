"""What is cached is made once, whole, and where the user has it."""

import fcntl
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import dead_token

from accel_trainer.core.cache import cached
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import cache_folder
from accel_trainer.core.lease import Owner


class Maker:
    """Writes a text, slowly, and counts how often; fails the first `failures` times with half of it written."""

    def __init__(self, failures: int = 0, error: type[BaseException] = RuntimeError) -> None:
        self.failures = failures
        self.error = error
        self.asides: list[Path] = []
        self.started = threading.Event()

    def __call__(self, aside: Path) -> None:
        self.asides.append(aside)
        self.started.set()
        with aside.open("w") as file:
            file.write("half")
            file.flush()
            time.sleep(0.1)
            if len(self.asides) <= self.failures:
                raise self.error("no luck")
            file.write(" and half")


def made(folder: Path) -> list[str]:
    """The names of all files but locks and checksums, hidden ones too."""
    besides = (".lock", ".check")
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix not in besides)


def test_a_cached_file_is_made_only_once(tmp_path: Path) -> None:
    path, make = tmp_path / "some" / "folder" / "thing.txt", Maker()
    assert cached(path, make) == path
    assert cached(path, make) == path
    assert path.read_text() == "half and half"
    assert len(make.asides) == 1
    assert made(tmp_path) == ["thing.txt"]


def test_a_file_that_is_there_as_it_was_made_is_left_alone(tmp_path: Path) -> None:
    path = cached(tmp_path / "thing.txt", Maker())
    lock, make = tmp_path / ".thing.txt.lock", Maker()
    lock.unlink()
    assert cached(path, make).read_text() == "half and half"
    assert not make.asides
    assert not lock.exists(), "it is only read"


@pytest.mark.parametrize("damage", ["empty", "short", "zeros", "longer", "no checksum", "half a checksum", "unsynced"])
def test_a_file_that_is_not_as_it_was_made_is_made_anew_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = cached(tmp_path / "thing.txt", Maker())
    check = tmp_path / ".thing.txt.check"
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(content[:5])
        case "zeros":
            path.write_bytes(bytes(len(content)))
        case "longer":
            path.write_bytes(content + b"!")
        case "no checksum":
            check.unlink()
        case "half a checksum":
            check.write_bytes(check.read_bytes()[:4])
        case "unsynced":
            path.write_bytes(b"")
            check.write_bytes(b"")
    make = Maker()
    for _ in range(2):
        assert cached(path, make).read_text() == "half and half"
    assert len(make.asides) == 1
    said = f"{path} in the cache is damaged, or of an older version: it is made anew"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_what_is_cached_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = list[int](), os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number).st_ino), fsync(number)))
    path = cached(tmp_path / "thing.txt", Maker())
    assert {path.stat().st_ino, path.parent.stat().st_ino} <= set(synced)


def test_it_is_written_aside_in_the_same_folder(tmp_path: Path) -> None:
    path, make = tmp_path / "thing.safetensors", Maker()
    cached(path, make)
    (aside,) = make.asides
    assert aside != path
    assert aside.parent == path.parent


def test_what_a_killed_process_left_half_made_is_removed(tmp_path: Path) -> None:
    for token in (dead_token(), Owner.new().token):
        (tmp_path / f".other.npy.{token}.tmp").write_text("half")
    cached(tmp_path / "thing.txt", Maker())
    assert [path.name for path in tmp_path.glob(".other.*")] == [f".other.npy.{token}.tmp"]


@pytest.mark.parametrize("count", [2, 8])
def test_several_threads_at_once_make_it_once(tmp_path: Path, count: int) -> None:
    path, make, start = tmp_path / "new" / "thing.txt", Maker(), threading.Barrier(count)

    def ask(_: int) -> str:
        start.wait(5)
        return cached(path, make).read_text()

    with ThreadPoolExecutor(count) as threads:
        assert set(threads.map(ask, range(count))) == {"half and half"}
    assert len(make.asides) == 1
    assert made(tmp_path) == ["thing.txt"]


def test_who_comes_meanwhile_waits_and_the_file_appears_whole(tmp_path: Path) -> None:
    path, make = tmp_path / "thing.txt", Maker()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cached, path, make)
        make.started.wait(5)
        assert not path.exists()
        second = threads.submit(cached, path, make)
        while not path.exists():
            assert not second.done()
            time.sleep(0.001)
        assert path.read_text() == "half and half"
        assert first.result() == second.result() == path
    assert len(make.asides) == 1


def test_different_files_are_made_at_the_same_time(tmp_path: Path) -> None:
    meet = threading.Barrier(2)

    def make(aside: Path) -> None:
        meet.wait(5)
        aside.write_text("made")

    with ThreadPoolExecutor(2) as threads:
        paths = list(threads.map(lambda name: cached(tmp_path / name, make), ["a.txt", "a.bin"]))
    assert [path.read_text() for path in paths] == ["made", "made"]


@pytest.mark.parametrize("error", [RuntimeError, UserError, KeyboardInterrupt, OSError])
def test_what_could_not_be_made_leaves_nothing_and_is_made_by_the_next(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path, make = tmp_path / "thing.txt", Maker(failures=1, error=error)
    with pytest.raises(error, match="no luck"):
        cached(path, make)
    assert made(tmp_path) == []
    assert cached(path, make).read_text() == "half and half"
    assert made(tmp_path) == ["thing.txt"]


def test_who_waits_for_a_maker_that_fails_makes_it(tmp_path: Path) -> None:
    path, make = tmp_path / "thing.txt", Maker(failures=1)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cached, path, make)
        make.started.wait(5)
        second = threads.submit(cached, path, make)
        assert second.result().read_text() == "half and half"
        with pytest.raises(RuntimeError, match="no luck"):
            first.result()
    assert made(tmp_path) == ["thing.txt"]


@pytest.mark.parametrize("below", ["thing.txt", "folder/thing.txt"])
def test_an_unwritable_cache_folder_is_reported_with_its_variable(tmp_path: Path, below: str) -> None:
    make = Maker()
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / below
    with pytest.raises(UserError) as caught:
        cached(path, make)
    said = str(caught.value)
    assert said.startswith(f"cannot write to {path.parent}: ")
    assert said.endswith("; set XDG_CACHE_HOME to a folder")
    assert "None" not in said
    assert not make.asides


@pytest.mark.parametrize("value", [None, ""])
def test_the_cache_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder() == tmp_path / "home" / ".cache" / "accel-train"


@pytest.mark.parametrize("value", ["{tmp_path}/elsewhere", "~/elsewhere"])
def test_xdg_cache_home_chooses_the_place_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value.format(tmp_path=tmp_path))
    parent = tmp_path / "home" if value.startswith("~") else tmp_path
    assert cache_folder() == parent / "elsewhere" / "accel-train"
    assert not cache_folder().exists()


def test_who_waits_for_what_another_makes_says_so_again_and_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "cache" / "made", list[str]()
    cached(tmp_path / "others" / "made", lambda aside: aside.write_text("by the other"))
    (tmp_path / "others" / ".made.lock").unlink()
    path.parent.mkdir()
    with (path.parent / ".made.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def waiting() -> None:
            calls.append("waits")
            if len(calls) == 2:
                shutil.copytree(tmp_path / "others", path.parent, dirs_exist_ok=True)
                fcntl.flock(other, fcntl.LOCK_UN)

        assert cached(path, Maker(), waiting).read_text() == "by the other"
    assert calls == ["waits", "waits"]
