"""Who trains waits for no terminal: not for one that is stopped, and not for the reader of a pipe."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import kill_tree, wait_until, write_job

from accel_trainer.cli import background_output
from accel_trainer.cli.background_output import BackgroundOutput


@pytest.fixture(params=["terminal", "pipe"])
def unread(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """(where to read, where to write) of a terminal or a pipe that nobody reads, and that is full."""
    reads, writes = pair = pty.openpty() if request.param == "terminal" else os.pipe()
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, b"." * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, b".")
    os.set_blocking(writes, True)
    yield reads, writes
    for descriptor in pair:
        os.close(descriptor)


def run_queue(output: int, *words: str) -> "subprocess.Popen[bytes]":
    for name in ("a", "b", "c"):
        write_job(Path(f"training_queue/{name}.json"), batch_size=-1)
    command = [sys.executable, "-m", "accel_trainer.cli", "run-queue", *words]
    return subprocess.Popen(command, stdin=output, stdout=output, stderr=output, start_new_session=True)


def read_all(descriptor: int) -> str:
    content = b""
    while select.select([descriptor], [], [], 0.3)[0]:
        content += os.read(descriptor, 1 << 16)
    return content.decode()


FAILED = Path("training_queue/failed")


@pytest.mark.usefixtures("unchecked")
def test_a_queue_runs_to_its_end_before_a_terminal_or_pipe_that_nobody_reads(unread: tuple[int, int]) -> None:
    runner = run_queue(unread[1])
    try:
        assert runner.wait(60) == 1
    finally:
        kill_tree(runner.pid)
    assert sorted(path.stem for path in FAILED.glob("*.json")) == ["a", "b", "c"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("unread", ["terminal"], indirect=True)
def test_a_runner_before_a_stopped_terminal_takes_new_jobs_and_stops_when_asked(unread: tuple[int, int]) -> None:
    runner = run_queue(unread[1], "--watch")
    try:
        wait_until(lambda: len(list(FAILED.glob("*.json"))) == 3, 60)
        write_job(Path("training_queue/later.json"), batch_size=-1)
        wait_until((FAILED / "later.json").exists, 30)
        assert "a.json: batch_size: -1" in read_all(unread[0]), "it comes as soon as somebody reads"
        runner.terminate()
        assert runner.wait(30) == 143
    finally:
        kill_tree(runner.pid)


def test_lines_come_in_order_and_what_was_left_out_is_counted_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_output, "MOST_BYTES", 1000)
    reads, writes = os.pipe()
    os.write(writes, b"." * (1 << 16))  # it is full

    def write(content: bytes) -> None:
        with suppress(BrokenPipeError):  # the end of the test
            os.write(writes, content)

    output = BackgroundOutput()
    for number in range(300):
        output.put(write, b"line %d\n" % number)
    assert output.is_behind
    os.read(reads, 1 << 16)
    wait_until(lambda: not output.is_behind, 10)
    output.put(write, b"now\n")
    output.drain()
    *lines, said, last = [line for line in read_all(reads).splitlines() if line]
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert 50 < len(lines) < 200
    assert said == f"[{300 - len(lines)} lines left out: they could not be printed in time]"
    assert last == "now"
    began = time.monotonic()
    monkeypatch.setattr(background_output, "PATIENCE_S", 0.3)
    os.write(writes, b"." * (1 << 16))
    output.put(write, b"nobody reads this\n")
    output.drain()
    assert 0.2 < time.monotonic() - began < 5
    os.close(reads)
