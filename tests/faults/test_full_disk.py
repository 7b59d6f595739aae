"""A disk that becomes full in the middle of a training: its run waits, others go on, and nothing has failed."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import file_names, own_disk, wait_until, write_job
from safetensors.torch import load_file

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, read_status

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]
SMALL: dict[str, Any] = {
    "architecture": "small_cnn",
    "architecture_args": {"features": [4, 4, 4]},
    "image_size": 8,
    "num_epochs": 12,
    "num_workers": 1,
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with own_disk(tmp_path / "disk", "size=16m") as disk:
        yield disk


def test_a_run_whose_disk_was_full_in_the_middle_has_the_same_weights(
    disk: Path, background: Callable[..., "subprocess.Popen[str]"]
) -> None:
    full, other = RunFolder(disk / "run"), RunFolder(Path("other").absolute())
    for name, run in (("a", full), ("b", other)):
        write_job(Path(f"training_queue/{name}.json"), **SMALL, model_dir=str(run.path))
    runner = background("run-queue", "--retry-after", "0.1")
    wait_until(lambda: (status := read_status(full)) is not None and (status.epoch or 0) >= 2)
    subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'rest'}", "bs=4k"], capture_output=True)
    wait_until(lambda: (status := read_status(other)) is not None and status.state is RunState.FINISHED)
    interrupted = read_status(full)
    assert interrupted is not None
    assert interrupted.state is RunState.MACHINE_FAILED
    assert interrupted.epoch < SMALL["num_epochs"]
    (disk / "rest").unlink()
    output, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, output
    assert "jobs that write there wait until that is over" in output
    assert sorted(path.name for path in Path("training_queue/done").glob("*.json")) == ["a.json", "b.json"]
    assert file_names(full.params) == file_names(other.params)
    for name in file_names(full.params):
        one, two = load_file(full.params / name), load_file(other.params / name)
        assert all(one[key].equal(two[key]) for key in one), name
