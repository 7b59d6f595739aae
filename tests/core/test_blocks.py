"""Long files are read in blocks, and from the end."""

import os
import random
import tracemalloc
from pathlib import Path

import pytest

from accel_trainer.core import blocks
from accel_trainer.core.blocks import open_text, read_block, start_of_last_lines


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("text", [b"", b"\n", b"one", b"one\n", b"one\ntwo", b"one\n\n\nfour\n", b"\n\nthree"])
def test_the_last_lines_begin_where_a_whole_read_says(tmp_path: Path, monkeypatch, text: bytes, block: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block)
    path = tmp_path / "log"
    path.write_bytes(text)
    for number in range(6):
        lines = text.splitlines(keepends=True)
        wanted = b"".join(lines[-number:] if number else [])
        assert text[start_of_last_lines(path, number) :] == wanted, number


def test_blocks_are_the_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    path = tmp_path / "log"
    path.write_bytes(content := random.Random(0).randbytes(1234))
    assert b"".join(blocks.blocks(path)) == content
    assert b"".join(blocks.blocks(path, 1000)) == content[1000:]
    assert read_block(path, 5000) == b""


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (lambda path: read_block(path, 0), lambda path: start_of_last_lines(path, 1)):
        with pytest.raises(OSError, match="not a regular file"):
            read(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"), open_text(tmp_path / "pipe", 10):
        pass


def test_the_end_of_a_file_of_a_gigabyte_takes_the_memory_of_a_few_blocks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    tracemalloc.start()
    try:
        assert start_of_last_lines(path, 1) == 2**30 + 1
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
