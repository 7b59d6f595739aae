"""Lines by a pipe."""

import os

from accel_trainer.core.line_reader import LineReader


def test_lines_come_whole_however_they_are_written_and_nothing_is_waited_for() -> None:
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    lines = LineReader(reads)
    assert not lines.read()
    os.write(writes, b"one\ntw")
    assert lines.read()
    assert (lines.next(), lines.next()) == (b"one", None)
    os.write(writes, b"o\n\nthree")
    assert lines.read()
    assert [lines.next(), lines.next(), lines.next()] == [b"two", b"", None]
    assert not lines.is_over
    os.close(writes)
    assert not lines.read()
    assert lines.is_over
    os.close(reads)


def test_what_cannot_be_read_is_over() -> None:
    reads, writes = os.pipe()
    os.close(writes)
    os.close(reads)
    lines = LineReader(reads)
    assert not lines.read()
    assert lines.is_over
