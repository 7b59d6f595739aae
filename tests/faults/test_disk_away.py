"""A disk that goes away in the middle of a training, below the C library: the training waits, and is the same one."""

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
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
# Of a step while the disk goes away and comes back: a training that takes its time, and none of the processor's.
PAUSE_S = 0.03


def write_job(folder: Path, disk: Path, dataset: str, pause_s: float) -> Path:
    job = {
        "architecture": "tiny_models:Unhurried", "architecture_args": {"pause_s": pause_s}, "image_size": 8,
        "data_root": str(disk), "dataset": dataset, "num_epochs": 20, "batch_size": 16, "num_workers": 2,
        "optimizer_args": {"lr": 0.001}, "trackers": [], "model_dir": str(folder / "run"),
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
    """A trainer on a disk that can go away: a process of a server that was started with the library loaded first."""

    def __init__(self, server: ForkServer, switch: Path, file: Path) -> None:
        self._server, self._switch, self._file = server, switch, file
        self.run, self._log = RunFolder(file.parent / "run"), file.parent / "log"

    def start(self, **environment: str) -> None:
        self._codes: list[int] = []
        self._thread = threading.Thread(target=self._train, kwargs=environment)
        self._thread.start()

    def _train(self, **environment: str) -> None:
        self._codes += self._server.attempt(self._file, "token", self._log, **environment)

    @property
    def status(self) -> Status:
        return read_status(self.run) or Status(state=RunState.STARTING)

    def log(self) -> str:
        return self.run.log.read_text() if self.run.log.exists() else ""

    def until(self, condition: Callable[[], Any]) -> None:
        wait_until(lambda: condition() or not self._thread.is_alive())
        assert condition(), self._log.read_text()

    def go_away(self, error: int) -> None:
        aside = self._switch.with_suffix(".new")
        aside.write_text(str(error))
        aside.rename(self._switch)

    def come_back(self) -> None:
        self._switch.unlink()

    def outage(self, error: int, seconds: float) -> None:
        """The disk is away from now on, for some time after a read has failed."""
        failed, back = self.log().count("cannot read"), self.log().count("reading works again")
        self.go_away(error)
        self.until(lambda: self.log().count("cannot read") > failed)
        time.sleep(seconds)
        self.come_back()
        self.until(lambda: self.log().count("reading works again") > back)

    def terminate(self) -> None:
        (process,) = self._server.forked
        os.kill(process, signal.SIGTERM)

    def wait(self) -> int:
        """The exit code."""
        self._thread.join()
        (code,) = self._codes
        return code

    def end(self) -> dict[str, Any]:
        """What it comes to, when it has ended."""
        assert self.wait() == 0, self._log.read_text()
        return results(self.run)

    def kill(self) -> None:
        for process in self._server.forked:
            os.kill(process, signal.SIGKILL)
        self._thread.join()


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file is there, the disk is away."""
    return tmp_path_factory.mktemp("switch") / "switch"


@pytest.fixture(scope="module")
def disturbed(library: Path, disk: Path, switch: Path) -> Iterator[ForkServer]:
    """Forks trainers for whom the disk can go away."""
    with ForkServer(LD_PRELOAD=str(library), DISK_AWAY=str(disk), DISK_AWAY_SWITCH=str(switch)) as server:
        yield server


Train = Callable[..., Trainer]


@pytest.fixture
def train(tmp_path: Path, disk: Path, switch: Path, disturbed: ForkServer) -> Iterator[Train]:
    trainers: list[Trainer] = []

    def start(dataset: str = "set", **environment: str) -> Trainer:
        trainers.append(Trainer(disturbed, switch, write_job(tmp_path / "disturbed", disk, dataset, PAUSE_S)))
        trainers[-1].start(**environment)
        return trainers[-1]

    yield start
    for trainer in trainers:
        trainer.kill()
    switch.unlink(missing_ok=True)


Undisturbed = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, disk: Path, server: ForkServer) -> Undisturbed:
    """What a job comes to on a disk that stays."""

    @cache
    def train(dataset: str) -> dict[str, Any]:
        file = write_job(tmp_path_factory.mktemp("undisturbed") / dataset, disk, dataset, 0.0)
        server.train(file)
        return results(RunFolder(file.parent / "run"))

    return train


@pytest.mark.parametrize("dataset", ["set", "set.pack"])
def test_a_training_whose_disk_goes_away_has_the_same_weights(
    train: Train, undisturbed: Undisturbed, dataset: str
) -> None:
    trainer = train(dataset)
    trainer.until(lambda: "epoch 2/" in trainer.log())
    for error in ERRORS:
        trainer.outage(error, AWAY_S)
    assert trainer.end() == undisturbed(dataset)
    assert "corrupt" not in trainer.log()
    assert trainer.log().count("cannot read") == trainer.log().count("reading works again") == len(ERRORS)


def test_a_disk_that_stays_away_is_the_machines_failure_and_the_run_resumes(
    train: Train, undisturbed: Undisturbed
) -> None:
    trainer = train(**{PATIENCE_VARIABLE: "0.5"})
    trainer.until(lambda: "epoch 2/" in trainer.log())
    trainer.go_away(errno.EIO)
    trainer.wait()
    assert trainer.status.state is RunState.MACHINE_FAILED
    assert "cannot be read: Input/output error" in (trainer.status.error or "")
    trainer.come_back()
    trainer.start()
    assert trainer.end() == undisturbed("set")


def test_a_stop_is_heard_while_the_disk_is_away(train: Train) -> None:
    trainer = train()
    trainer.until(lambda: "epoch 2/" in trainer.log())
    trainer.go_away(errno.EIO)
    trainer.until(lambda: "cannot read" in trainer.log())
    trainer.terminate()
    assert (trainer.wait(), trainer.status.state) == (0, RunState.PREEMPTED)
