"""The disk of a data set goes away from one of the two processes that train a job of a queue.

The second test continues with the job of the first, which one runner trains.
"""

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.lab import Lab
from helpers import wait_until

from accel_trainer.core.outage import PATIENCE_VARIABLE

pytestmark = pytest.mark.slow
PATIENCE_S, AWAY_S = 4.0, 1.0
RETRIED = "is tried again in"


class DiskLab(Lab):
    """A queue whose job reads a disk that can go away from its second process, by `switch`."""

    def go_away(self) -> None:
        (self.folder / "aside").write_text(str(errno.EIO))
        (self.folder / "aside").rename(self.switch)

    @property
    def switch(self) -> Path:
        return self.folder / "switch"

    def until_it_trains(self) -> None:
        """Until this attempt has saved a state."""
        self.wait_for_step(checks.global_step(self.run()) + 2)

    def until_said(self, words: str, times: int) -> None:
        wait_until(lambda: self.all_output().count(words) >= times or self.is_over())
        assert self.all_output().count(words) == times, self.all_output()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, library: Path, disk: Path) -> Iterator[DiskLab]:
    with pytest.MonkeyPatch.context() as patch, DiskLab(tmp_path_factory.mktemp("lab"), num_processes=2) as lab:
        given = {PATIENCE_VARIABLE: PATIENCE_S, "LD_PRELOAD": library}
        given |= {"DISK_AWAY": disk, "DISK_AWAY_SWITCH": lab.switch, "DISK_AWAY_RANK": 1}
        for name, value in given.items():
            patch.setenv(name, str(value))
        lab.add(dataset="set", data_root=str(disk), class_subset=None, batch_size=16, num_epochs=4)
        lab.start("--retry-after", "3")
        yield lab


def test_two_processes_wait_for_the_disk_of_one_of_them(lab: DiskLab) -> None:
    lab.until_it_trains()
    lab.go_away()
    lab.until_said("cannot read", 1)
    time.sleep(AWAY_S)
    lab.switch.unlink()
    lab.until_said("reading works again", 1)
    lab.until_it_trains()
    assert RETRIED not in lab.output.read_text()


def test_a_disk_that_stays_away_from_one_process_returns_the_job_to_pending_until_it_is_back(
    lab: DiskLab, server: ForkServer
) -> None:
    lab.go_away()
    lab.until_said(RETRIED, 1)
    assert (lab.where(), checks.state_of(lab.run())) == ("pending", "machine_failed")
    assert "cannot be read: Input/output error" in lab.output.read_text()
    lab.switch.unlink()
    lab.hurry()
    assert lab.wait() == 0, lab.all_output()
    assert lab.where() == "done"
    assert lab.output.read_text().count("(the machine failed, not the job)") == 1
    assert checks.differences(lab.run(), lab.undisturbed(server)) == []
    assert lab.orphans() == []
