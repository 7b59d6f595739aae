import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from accel_trainer.core import process_space
from accel_trainer.core.process_space import Life, life_of, own_start, start_time

PID = os.getpid()


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """What this process knows of itself is read in each test."""
    process_space.forget()
    yield
    process_space.forget()


def say_of_kill(monkeypatch: pytest.MonkeyPatch, error: OSError | None) -> None:
    def kill(pid: int, number: int) -> None:
        assert number == 0
        if error is not None:
            raise error

    monkeypatch.setattr(os, "kill", kill)


def test_a_process_is_alive_while_its_start_is_the_same() -> None:
    assert life_of(PID, own_start()) is Life.ALIVE
    assert own_start() == start_time(PID)
    assert life_of(PID, str(int(own_start()) + 1)) is Life.DEAD, "the id was given out again"


def test_a_process_that_has_ended_is_dead_before_it_is_waited_for_and_after() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        started = start_time(sleeper.pid)
        assert started
        assert life_of(sleeper.pid, started) is Life.ALIVE
        sleeper.kill()
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        assert life_of(sleeper.pid, started) is Life.DEAD, "a zombie"
    assert life_of(sleeper.pid, started) is Life.DEAD


@pytest.mark.parametrize("pid", [2**31 - 1, 10**17])
def test_a_process_that_cannot_be_is_dead(pid: int) -> None:
    assert life_of(pid, "1") is Life.DEAD


@pytest.mark.parametrize(
    ("answer", "life"),
    [(ProcessLookupError(), Life.DEAD), (PermissionError(), Life.UNKNOWN), (None, Life.UNKNOWN)],
    ids=["ESRCH", "EPERM", "there"],
)
def test_where_a_start_cannot_be_read_only_the_kernel_says_that_there_is_no_such_process(
    monkeypatch: pytest.MonkeyPatch, answer: OSError | None, life: Life
) -> None:
    say_of_kill(monkeypatch, answer)
    monkeypatch.setattr(process_space, "start_time", lambda pid: None)
    assert life_of(4711, "99") is life
    assert life_of(4711, process_space.NOT_KNOWN) is life


@pytest.mark.parametrize("content", ["", "of another namespace"])
def test_a_proc_that_is_not_mounted_or_of_others_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    """As after `unshare --pid` without `--mount-proc`: the ids there are those of other processes."""
    say_of_kill(monkeypatch, None)
    started = own_start()
    if content:
        (tmp_path / "self").symlink_to("12345")
        (tmp_path / "12345").mkdir()
        stat = Path("/proc/self/stat").read_text()
        (tmp_path / "12345/stat").write_text(stat.replace(str(PID), "12345", 1))
        (tmp_path / str(PID)).mkdir()
        (tmp_path / str(PID) / "stat").write_text(stat.replace(f" {started} ", " 1 "))
    process_space.forget()
    monkeypatch.setattr(process_space, "PROC", tmp_path)
    assert not process_space.sees_processes()
    assert start_time(PID) is None
    assert own_start() == (started if content else process_space.NOT_KNOWN)
    assert life_of(4711, "99") is Life.UNKNOWN
    assert life_of(PID, own_start()) is Life.ALIVE, "it is this process"


def test_a_space_that_cannot_be_read_is_nobody_elses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process_space, "PROC", tmp_path)
    first = process_space.space_id()
    assert first == process_space.space_id(), "of one process it is the same"
    process_space.forget()
    assert first != process_space.space_id()


def test_a_boot_id_that_cannot_be_read_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not the time of the start, which is another one whenever the clock is set."""
    monkeypatch.setattr(process_space, "BOOT_ID", tmp_path / "boot_id")
    process_space.boot_id.cache_clear()
    try:
        assert process_space.boot_id() == ""
    finally:
        process_space.boot_id.cache_clear()


def test_a_space_is_that_of_the_first_namespaces_or_another() -> None:
    pids, times = (Path("/proc/self/ns", kind).stat().st_ino for kind in ("pid", "time"))
    is_first = (pids, times) == (process_space.FIRST_PID_SPACE, process_space.FIRST_TIME_SPACE)
    assert (process_space.space_id() == process_space.FIRST_SPACE) == is_first
    assert process_space.space_name().count("_") == 2
    assert "-" not in process_space.space_name()


def test_a_child_reads_what_it_is_itself() -> None:
    started, (reads, writes) = own_start(), os.pipe()
    if (child := os.fork()) == 0:
        os.write(writes, f"{own_start()} {start_time(os.getpid())} {start_time(PID)}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    own, seen, parent = os.read(reads, 100).decode().split()
    assert own == seen
    assert parent == started
