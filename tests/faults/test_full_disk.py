"""A disk that becomes full in the middle of a training: its run waits, others go on, and nothing has failed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import checks
from faults.lab import Lab
from helpers import own_disk, wait_until

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, read_status

pytestmark = pytest.mark.slow
NUM_EPOCHS = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with own_disk(tmp_path / "disk", "size=16m") as disk:
        yield disk


def test_a_run_whose_disk_was_full_in_the_middle_has_the_same_weights(disk: Path, tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        lab.add("a", num_epochs=NUM_EPOCHS, model_dir=str(disk / "run"))
        other = lab.add("b", num_epochs=NUM_EPOCHS, pause_s=0.0)
        lab.start("--retry-after", "0.1")
        wait_until(lambda: checks.global_step(disk / "run") >= 8)
        subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'rest'}", "bs=4k"], capture_output=True)
        wait_until(lambda: (status := read_status(RunFolder(other))) and status.state is RunState.FINISHED)
        interrupted = read_status(RunFolder(disk / "run"))
        assert interrupted is not None
        assert interrupted.state is RunState.MACHINE_FAILED
        assert interrupted.epoch < NUM_EPOCHS
        (disk / "rest").unlink()
        assert lab.wait() == 0, lab.all_output()
        assert "jobs that write there wait until that is over" in lab.output.read_text()
        assert (lab.where("a"), lab.where("b")) == ("done", "done")
        assert checks.differences(disk / "run", other) == []
