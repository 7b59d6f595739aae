"""What a disk does not give is asked for again, by all threads, until patience is at its end or a stop is requested."""

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from accel_trainer.core import outage
from accel_trainer.core.outage import MachineFailure, StoppedWaiting, UnsuitableFile, persistently, waiting_out


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(outage, "LONGEST_PAUSE_S", 0.004)


class Disk:
    """Fails with these errors, one after the other, and then works."""

    def __init__(self, *errors: OSError) -> None:
        self.errors, self.reads = iter(errors), 0

    def __call__(self) -> str:
        self.reads += 1
        for error in self.errors:
            raise error
        return "content"


def named(name: str = "the file") -> Callable[[], str]:
    return lambda: name


def forever(error: OSError) -> Callable[[], str]:
    def fail() -> str:
        raise error

    return fail


SYSTEM = [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOENT, errno.ENOTCONN, errno.EMFILE, errno.ETIMEDOUT]


def test_errors_of_the_system_are_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(*(OSError(number, "away", "/nowhere/x") for number in SYSTEM))
    with waiting_out(lambda: False):
        assert persistently(disk, named()) == "content"
    assert disk.reads == len(SYSTEM) + 1
    first, last = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert first == "cannot read the file: away; trying again for up to 5m 00s"
    assert last == "reading works again, after 0s"


def test_where_nobody_waits_the_error_itself_comes_at_once() -> None:
    disk = Disk(OSError(errno.EIO, "away"))
    with pytest.raises(OSError, match="away"):
        persistently(disk, named())
    assert disk.reads == 1


def test_what_was_found_and_is_not_to_be_read_is_an_answer() -> None:
    with waiting_out(lambda: False), pytest.raises(UnsuitableFile):
        persistently(forever(UnsuitableFile(errno.EINVAL, "not a regular file")), named())
    missing = OSError(errno.ENOENT, "no such file", "/x")
    with waiting_out(lambda: False), pytest.raises(FileNotFoundError):
        persistently(forever(missing), named(), may_be_missing=True)


def test_in_the_end_it_is_the_machines_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(outage.PATIENCE_VARIABLE, "0.02")
    with waiting_out(lambda: False):
        with pytest.raises(MachineFailure, match=r"^the file cannot be read: away$"):
            persistently(forever(OSError(errno.EIO, "away")), named())
        gone = OSError(errno.ENOENT, "no such file", str(tmp_path / "a.png"))
        with pytest.raises(MachineFailure, match=r"^the file is gone, and its folder is there; restore it$"):
            persistently(forever(gone), named())
        gone = OSError(errno.ENOENT, "no such file", str(tmp_path / "away" / "a.png"))
        with pytest.raises(MachineFailure, match=r"^the file cannot be read: no such file$"):
            persistently(forever(gone), named())


def test_a_file_that_is_gone_is_waited_for_less_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outage, "PATIENCE_FOR_FILE_S", 0.02)
    with waiting_out(lambda: False), pytest.raises(MachineFailure, match="is gone"):
        persistently(forever(OSError(errno.ENOENT, "no such file", str(tmp_path / "a.png"))), named())


def test_the_context_may_ask_for_less_patience_and_ends_with_it() -> None:
    with waiting_out(lambda: False, at_most_s=0.01), pytest.raises(MachineFailure):
        persistently(forever(OSError(errno.EIO, "away")), named())
    with pytest.raises(OSError, match="away"):
        persistently(forever(OSError(errno.EIO, "away")), named())


@pytest.mark.parametrize("given", ["", "nan", "-1", "inf", "long"])
def test_a_patience_that_is_none_is_the_usual_one(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(outage.PATIENCE_VARIABLE, given)
    with waiting_out(lambda: False):
        assert outage._patience.seconds == outage.PATIENCE_S


def test_a_stop_ends_the_waiting_of_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE_S", 100.0)
    monkeypatch.setattr(outage, "LONGEST_PAUSE_S", 100.0)
    stop, stopped = threading.Event(), []

    def wait() -> None:
        try:
            persistently(forever(OSError(errno.EIO, "away")), named())
        except StoppedWaiting:
            stopped.append(1)

    with waiting_out(stop.is_set):
        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
    assert len(stopped) == 3


def test_many_threads_that_wait_at_once_log_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    away, waiting = threading.Event(), threading.Barrier(5)
    away.set()

    def reads() -> Iterator[str]:
        waiting.wait(timeout=60)  # the first read of each fails while the others' do
        yield from ()

    def read() -> str:
        if away.is_set():
            raise OSError(errno.EIO, "away")
        return "content"

    def work() -> None:
        list(reads())
        persistently(read, named())

    with waiting_out(lambda: False):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        waiting.wait(timeout=60)
        while outage._outage._waiting < 4:
            time.sleep(0.001)
        away.clear()
        for thread in threads:
            thread.join(timeout=60)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["cannot", "reading"]


def test_a_name_that_is_on_the_same_disk_does_not_hide_the_failure() -> None:
    def name() -> str:
        raise OSError(errno.EIO, "away")

    with waiting_out(lambda: False, at_most_s=0.01), pytest.raises(MachineFailure, match=r"^/x/y cannot be read: away"):
        persistently(forever(OSError(errno.EIO, "away", "/x/y")), name)
