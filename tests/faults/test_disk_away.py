"""A disk that goes away in the middle of a training, below the C library: the training waits, and is the same one."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults.fork_server import ForkServer
from helpers import wait_until
from safetensors.torch import load_file

from accel_trainer.core.outage import PATIENCE_VARIABLE
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, read_status

pytestmark = pytest.mark.slow
# How long the disk is away each time, in the test.
AWAY_S = float(os.environ.get("DISK_AWAY_S", "0.3"))
ERRORS = (errno.EIO, errno.ESTALE, errno.ENOENT, errno.EACCES)


def write_job(folder: Path, disk: Path, **changes: Any) -> Path:
    job = {
        "architecture": "small_cnn", "architecture_args": {"features": [4, 4, 4]}, "image_size": 8,
        "data_root": str(disk), "dataset": "set", "num_epochs": 60, "batch_size": 16, "num_workers": 2,
        "optimizer_args": {"lr": 0.001}, "trackers": [], "model_dir": str(folder / "run"), **changes,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def results(run: RunFolder) -> dict[str, Any]:
    """What a training comes to: the weights, and what was measured, but for times."""
    weights = {path.name: load_file(path) for path in run.params.iterdir()}
    return {
        "table": [line.split(",")[:5] for line in run.performance.read_text().splitlines()],
        **{f"{file}: {name}": values.tolist() for file in weights for name, values in weights[file].items()},
    }


class Trainer:
    """A trainer on a disk that can go away: the program that a launcher starts, with the library loaded first."""

    def __init__(self, folder: Path, library: Path, disk: Path, **changes: Any) -> None:
        file = write_job(folder, disk, **changes)
        self.run, self.switch = RunFolder(folder / "run"), folder / "switch"
        environment = {
            **os.environ, "LD_PRELOAD": str(library), "DISK_AWAY": str(disk), "DISK_AWAY_SWITCH": str(self.switch),
            "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
        command = [sys.executable, "-m", "accel_trainer.workers.train", str(file), "--name", "job"]
        self.start = partial(
            subprocess.Popen, command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.process = self.start()

    @property
    def status(self) -> Status:
        return read_status(self.run) or Status(state=RunState.STARTING)

    def log(self) -> str:
        return self.run.log.read_text() if self.run.log.exists() else ""

    def until(self, condition: Callable[[], Any]) -> None:
        wait_until(lambda: condition() or self.process.poll() is not None)
        assert condition(), self.process.communicate()[0]

    def go_away(self, error: int) -> None:
        aside = self.switch.with_suffix(".new")
        aside.write_text(str(error))
        aside.rename(self.switch)

    def outage(self, error: int, seconds: float) -> None:
        """The disk is away from now on, for some time after a read has failed."""
        failed, back = self.log().count("cannot read"), self.log().count("reading works again")
        self.go_away(error)
        self.until(lambda: self.log().count("cannot read") > failed)
        time.sleep(seconds)
        self.switch.unlink()
        self.until(lambda: self.log().count("reading works again") > back)

    def end(self) -> dict[str, Any]:
        """What it comes to, when it has ended."""
        said, _ = self.process.communicate()
        assert self.process.returncode == 0, said
        return results(self.run)


@pytest.fixture
def train(tmp_path: Path, library: Path, disk: Path) -> Any:
    trainers: list[Trainer] = []

    def start(name: str, **changes: Any) -> Trainer:
        trainers.append(Trainer(tmp_path / name, library, disk, **changes))
        return trainers[-1]

    yield start
    for trainer in trainers:
        trainer.process.kill()
        trainer.process.wait()


Undisturbed = Callable[..., dict[str, Any]]


@pytest.fixture
def undisturbed(tmp_path: Path, disk: Path, server: ForkServer) -> Undisturbed:
    """What a job comes to on a disk that stays."""

    def train(**changes: Any) -> dict[str, Any]:
        server.train(write_job(tmp_path / "undisturbed", disk, **changes))
        return results(RunFolder(tmp_path / "undisturbed/run"))

    return train


@pytest.mark.parametrize("dataset", ["set", "set.pack"])
def test_a_training_whose_disk_goes_away_has_the_same_weights(
    train: Any, undisturbed: Undisturbed, dataset: str
) -> None:
    trainer = train("disturbed", dataset=dataset)
    trainer.until(lambda: "epoch 2/" in trainer.log())
    for error in ERRORS:
        trainer.outage(error, AWAY_S)
    assert trainer.end() == undisturbed(dataset=dataset)
    assert "corrupt" not in trainer.log()
    assert trainer.log().count("cannot read") == trainer.log().count("reading works again") == len(ERRORS)


def test_a_disk_that_stays_away_is_the_machines_failure_and_the_run_resumes(
    train: Any, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.5")
    trainer = train("disturbed", num_epochs=20)
    trainer.until(lambda: "epoch 2/" in trainer.log())
    trainer.go_away(errno.EIO)
    trainer.process.communicate(timeout=300)
    assert trainer.status.state is RunState.MACHINE_FAILED
    assert "cannot be read: Input/output error" in (trainer.status.error or "")
    trainer.switch.unlink()
    trainer.process = trainer.start()
    assert trainer.end() == undisturbed(num_epochs=20)


def test_a_stop_is_heard_while_the_disk_is_away(train: Any) -> None:
    trainer = train("stopped")
    trainer.until(lambda: "epoch 2/" in trainer.log())
    trainer.go_away(errno.EIO)
    trainer.until(lambda: "cannot read" in trainer.log())
    trainer.process.send_signal(signal.SIGTERM)
    trainer.process.communicate(timeout=60)
    assert (trainer.process.returncode, trainer.status.state) == (0, RunState.PREEMPTED)
