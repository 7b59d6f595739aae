"""The loop, in this process: what the end-to-end tests would need a whole training for."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from accel_trainer.config import Job
from accel_trainer.data.loader import Loader
from accel_trainer.processes import StopRequest
from accel_trainer.runs import RunFolder, RunState, Status
from accel_trainer.training import loop as loop_module
from accel_trainer.training.build import build
from accel_trainer.training.checkpoint import StateStore
from accel_trainer.training.loop import Diverged, Stopped, TrainingLoop
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.start import Start
from accel_trainer.training.tracking import Tracking


@pytest.fixture
def new_loop(make_job: Callable[..., Job]) -> Iterator[Callable[[Path], TrainingLoop]]:
    """Makes loops over one job, each in a folder."""
    job = make_job(class_subset=[0, 1], num_epochs=2, batch_size=64, optimizer_args={"lr": 0.001})
    accelerator = Accelerator(cpu=True)
    status = Status(state=RunState.STARTING, num_epochs=2, steps_per_epoch=4)
    with Loader(1) as loader:

        def make(folder: Path) -> TrainingLoop:
            run = RunFolder(folder)
            run.create()
            reporter = Reporter(run, status, speaks=True)
            return TrainingLoop(job, run, build(job, world_size=1), accelerator, loader, StopRequest(), reporter)

        yield make
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture
def loop(new_loop: Callable[[Path], TrainingLoop], tmp_path: Path) -> TrainingLoop:
    return new_loop(tmp_path / "run")


def train(loop: TrainingLoop) -> None:
    loop.train(Tracking(loop.accelerator, loop.job, loop.run, None, "id"), plotter=None)


def test_a_state_after_a_loss_that_was_not_finite_does_not_replace_a_good_one(loop):
    loop._save_state()
    loop.progress.step = loop.progress.global_step = 1
    loop.meter.sums[0] = torch.nan
    loop._save_state()
    assert loop.states.newest().progress.global_step == 0


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(loop):
    judge = loop.objective.judge

    def explode(output, batch, *, is_shared):
        judged = judge(output, batch, is_shared=is_shared)
        return replace(judged, share=judged.share * (torch.inf if loop.progress.global_step == 5 else 1))

    loop.objective.judge = explode
    with pytest.raises(Diverged, match=r"not finite at step 6 \(epoch 2, learning rate 0\.001\)"):
        train(loop)
    assert loop.states.newest().progress.epoch == 1


def test_a_stop_during_validation_loses_nothing_of_the_epoch(loop):
    """The training of the epoch is over, its validation is not: it goes on with the validation."""
    whole = loop._evaluate

    def stopped_in_between(*args):
        loop.stop.signal = 15
        return whole(*args)

    loop._evaluate = stopped_in_between
    with pytest.raises(Stopped):
        train(loop)
    progress = loop.states.newest().progress
    assert (progress.epoch, progress.step) == (0, loop.parts.sampling.steps_per_epoch)
    assert loop.states.newest().trainer["sums"][0, 2] == loop.parts.sampling.examples_per_epoch


# What is written at the end of an epoch, in this order.
WRITES = ["save_weights", "log_epoch", "save", "write_performance"]


@pytest.mark.parametrize("write", WRITES)
def test_a_kill_before_any_write_of_an_epochs_end_repeats_it_exactly(new_loop, tmp_path, monkeypatch, write):
    undisturbed = new_loop(tmp_path / "undisturbed")
    train(undisturbed)
    whole = undisturbed.plain_model.state_dict()

    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    target = {"log_epoch": Tracking, "save": StateStore}.get(write, loop_module)
    with monkeypatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        broken = new_loop(tmp_path / "killed")
        patch.setattr(target, write, killed)
        train(broken)
    resumed = new_loop(tmp_path / "killed")
    resumed.begin(Start(state=resumed.states.newest()))
    train(resumed)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.plain_model.state_dict().items())
    assert scores(resumed) == scores(undisturbed)


def scores(loop: TrainingLoop) -> list[tuple]:
    return [(row["epoch"], row["split"], row["loss"], row["acc1"]) for row in loop.progress.history]
