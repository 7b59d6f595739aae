"""What a disk fails to do for a moment is tried again, and what hangs is said."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from accel_trainer.core import disk_calls
from accel_trainer.core.disk_calls import on_disk, retrying, saying_hangs, watched
from accel_trainer.core.machine_errors import PASSING, why_of_machine


class Flaky:
    """A call that fails so often, and then gives its number."""

    def __init__(self, number: int, times: float) -> None:
        self.number, self.times, self.calls = number, times, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise OSError(self.number, os.strerror(self.number), "/disk/file")
        return self.calls


@pytest.mark.parametrize("number", sorted(PASSING))
def test_what_fails_for_a_moment_is_tried_again_and_said_once(number: int) -> None:
    said: list[str] = []
    call = Flaky(number, 3)
    with retrying(60, say=said.append):
        assert on_disk(call, "/disk/file") == 4
    assert said[0] == f"/disk/file: {os.strerror(number)}; trying again for up to 1m 00s"
    assert [line.split(",")[0] for line in said[1:]] == ["the disk works again"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EEXIST, errno.ENOENT, errno.EACCES])
def test_an_answer_is_not_asked_for_again(number: int) -> None:
    call = Flaky(number, 1)
    with retrying(60), pytest.raises(OSError, match=os.strerror(number)):
        on_disk(call, "/disk/file")
    assert call.calls == 1


def test_who_does_not_wait_sees_the_error_at_once() -> None:
    call = Flaky(errno.EIO, 1)
    with pytest.raises(OSError, match="Input/output error"):
        on_disk(call, "/disk/file")
    assert call.calls == 1


def test_in_the_end_the_error_says_how_long_it_was_tried_and_is_the_machines() -> None:
    call = Flaky(errno.ESTALE, float("inf"))
    with retrying(1.1), pytest.raises(OSError, match=r"Stale file handle \(tried for 1s\)") as raised:
        on_disk(lambda: on_disk(call, "/disk/file"), "/disk")
    assert (raised.value.errno, raised.value.filename) == (errno.ESTALE, "/disk/file")
    assert why_of_machine(raised.value) == "the disk was mounted anew"


def test_what_does_not_end_is_waited_for_once_and_not_for_each_call() -> None:
    with retrying(0.5):
        began = time.monotonic()
        for number in range(5):
            with pytest.raises(OSError, match="Input/output"):
                on_disk(Flaky(errno.EIO, float("inf")), f"/disk/{number}")
        assert time.monotonic() - began < 1.5
        assert on_disk(Flaky(errno.EIO, 0), "/other/disk") == 1
        began = time.monotonic()
        for name in ("0", "6"):  # this disk is away still
            with pytest.raises(OSError, match="Input/output"):
                on_disk(Flaky(errno.EIO, float("inf")), f"/disk/{name}")
        assert time.monotonic() - began < 0.3
        assert on_disk(Flaky(errno.EIO, 0), "/disk/1") == 1
        began = time.monotonic()
        with pytest.raises(OSError, match="Input/output"):  # a single file that is broken for good
            on_disk(Flaky(errno.EIO, float("inf")), "/disk/0")
        assert time.monotonic() - began < 0.3
        assert on_disk(Flaky(errno.EIO, 2), "/disk/5") == 3, "another outage is waited out again"


def test_a_stop_ends_the_waiting_at_once() -> None:
    began = time.monotonic()
    with retrying(60, lambda: time.monotonic() - began > 0.3), pytest.raises(OSError, match="Input/output"):
        on_disk(Flaky(errno.EIO, float("inf")), "/disk/file")
    assert time.monotonic() - began < 5


def test_what_is_missing_while_its_whole_folder_is_missing_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    folder.mkdir()
    (folder / "file").write_text("there")
    with retrying(60, folders=[folder]):
        with pytest.raises(FileNotFoundError):
            on_disk((folder / "other").read_text, folder / "other")
        folder.rename(tmp_path / "away")
        threading.Timer(0.4, (tmp_path / "away").rename, [folder]).start()
        assert on_disk((folder / "file").read_text, folder / "file") == "there"


@pytest.fixture
def hangs_soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Has calls counted as hanging after so many seconds."""
    return lambda seconds: monkeypatch.setattr(disk_calls, "HANGS_S", seconds)


def test_a_call_that_hangs_is_said_again_and_again_with_its_path(hangs_soon: Callable[[float], None]) -> None:
    hangs_soon(1.0)
    said: list[str] = []
    with saying_hangs(said.append), watched("/disk"):
        on_disk(lambda: time.sleep(4.6), "/disk/queue")
        time.sleep(0.8)  # what has not hung for long is not said
    assert [line for line in said if "waiting" in line] == [
        f"waiting for the disk: {seconds} s (/disk/queue)" for seconds in (1, 2, 4)
    ]
    assert said[-1].startswith("the disk answers again, after ")


def test_of_many_calls_that_hang_the_oldest_is_said(hangs_soon: Callable[[float], None]) -> None:
    hangs_soon(0.5)
    said: list[str] = []

    def hang(path: str) -> None:
        with watched(path):
            time.sleep(1.2)

    with saying_hangs(said.append):
        threads = [threading.Thread(target=hang, args=(f"/disk/{number}",)) for number in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
        for thread in threads:
            thread.join()
    assert "(/disk/0, and 2 more)" in said[-1]
