"""The loop, in this process: what the end-to-end tests would need a whole training for."""

from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from accel_trainer.config import Job
from accel_trainer.data.loader import Loader
from accel_trainer.runs import RunFolder, RunState, Status
from accel_trainer.training.agreement import StopRequest
from accel_trainer.training.build import build
from accel_trainer.training.loop import Diverged, Stopped, TrainingLoop
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.tracking import Tracking


@pytest.fixture
def loop(run: RunFolder, make_job) -> Iterator[TrainingLoop]:
    job: Job = make_job(class_subset=[0, 1], num_epochs=2, batch_size=64, optimizer_args={"lr": 0.001})
    accelerator = Accelerator(cpu=True)
    status = Status(state=RunState.STARTING, num_epochs=2)
    with Loader(1) as loader:
        parts = build(job, world_size=1)
        yield TrainingLoop(job, run, parts, accelerator, loader, StopRequest(), Reporter(run, status, speaks=True))
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def train(loop: TrainingLoop) -> None:
    loop.train(Tracking(loop.accelerator, loop.job, loop.run, None, "id"), plotter=None)


def test_a_state_after_a_loss_that_was_not_finite_does_not_replace_a_good_one(loop):
    loop._save_state()
    loop.progress.step = loop.progress.global_step = 1
    loop.meter.sums[0] = torch.nan
    loop._save_state()
    assert loop.states.newest().progress.global_step == 0


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(loop):
    train_batch = loop._forward

    def explode(batch):
        logits, total = train_batch(batch)
        return logits, total * (torch.inf if loop.progress.global_step == 5 else 1)

    loop._forward = explode
    with pytest.raises(Diverged, match=r"not finite at step 6 \(epoch 2, learning rate 0\.001\)"):
        train(loop)
    assert loop.states.newest().progress.epoch == 1


def test_a_stop_during_validation_loses_nothing_of_the_epoch(loop):
    """The training of the epoch is over, its validation is not: it goes on with the validation."""
    whole = loop._evaluate

    def stopped_in_between():
        loop.stop.signal = 15
        return whole()

    loop._evaluate = stopped_in_between
    with pytest.raises(Stopped):
        train(loop)
    progress = loop.states.newest().progress
    assert (progress.epoch, progress.step) == (0, loop.parts.sampling.steps_per_epoch)
    assert loop.states.newest().trainer["sums"][0, 3] == loop.parts.sampling.images_per_epoch
