from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from accel_trainer.config import Job
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.loader import Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status
from accel_trainer.training import session
from accel_trainer.training.build import build
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.reporting import Reporter

MakeJob = Callable[..., Job]
MakeLoop = Callable[..., TrainingLoop]


@pytest.fixture(autouse=True)
def _no_plots(no_plots: None) -> None: ...


@pytest.fixture
def make_job() -> MakeJob:
    """A job on the digits, with some parameters changed."""

    def make(**given: Any) -> Job:
        few = {"architecture": "squeezenet1_1", "dataset": "digits", "image_size": 32, "trackers": []}
        return Job.model_validate({**few, **given})

    return make


# Steps that are the gradient, and nothing else.
PLAIN_SGD = {"lr": 0.001, "momentum": 0, "weight_decay": 0}


@pytest.fixture
def make_loop(make_job: MakeJob) -> Iterator[MakeLoop]:
    """Makes loops over jobs on two of the digits, each in a folder and on one process: `make_loop(folder, **job)`."""
    few: dict[str, Any] = {"class_subset": [0, 1], "num_epochs": 2, "batch_size": 64, "optimizer_args": PLAIN_SGD}
    with Loader(1) as loader:

        def make(folder: Path, **given: Any) -> TrainingLoop:
            job = make_job(**{**few, **given})
            run = RunFolder(folder)
            run.create()
            parts = build(job, world_size=1)
            steps = parts.sampling.steps_per_epoch
            status = Status(state=RunState.STARTING, num_epochs=job.num_epochs, steps_per_epoch=steps)
            accelerator = Accelerator(cpu=True, gradient_accumulation_steps=job.gradient_accumulation)
            return TrainingLoop(job, run, parts, accelerator, loader, StopRequest(), Reporter(run, status, writes=True))

        yield make
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs may name the models of tests/tiny_models.py."""
    monkeypatch.setenv(ALLOW_VARIABLE, "tiny_models")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


@pytest.fixture
def sessions_in_caplog(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session logs goes to whoever listens, instead of to its own handlers."""
    monkeypatch.setattr(session, "run_log", lambda *_, **__: nullcontext(lambda: None))
