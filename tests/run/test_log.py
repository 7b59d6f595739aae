"""log.txt of a run."""

import errno
import logging
import os
from pathlib import Path

import pytest
from faults.away import disk_of

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.log import run_log

log = logging.getLogger("accel_trainer")


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_lines_of_a_log_that_cannot_be_written_are_kept_until_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    with disk_of(run.path, monkeypatch) as disk:
        with run_log(run, 0, prints=False):
            log.info("first")
            disk.goes_away(error, 1, float("inf"))
            log.info("second")
            log.info("third")
            disk.error = 0
            log.info("fourth")
            disk.goes_away(error, 1, float("inf"))
            log.info("last")
            disk.error = 0
        lines = run.log.read_text().splitlines()
        assert [line[20:] for line in lines] == [
            "first",
            "second",
            "third",
            "fourth",
            "last",
        ]


def test_a_log_goes_on_in_the_file_that_is_there(tmp_path: Path) -> None:
    """As on a disk that was mounted anew, where what was open is stale."""
    run = RunFolder(tmp_path / "run")
    run.create()
    with run_log(run, 0, prints=False):
        log.info("first")
        os.replace(run.log, tmp_path / "old")  # noqa: PTH105
        log.info("second")
    assert run.log.read_text().endswith(" second\n")
