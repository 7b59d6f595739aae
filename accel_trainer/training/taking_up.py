"""Taking a run up where it was left: by the same job, by one that has changed, or from weights alone."""

import logging
from dataclasses import replace

import torch

from accel_trainer.config.diff import Changes
from accel_trainer.training.carry_over import averages_of_use, best_so_far, carry_optimizer_over, measures_the_same
from accel_trainer.training.checkpoint import TrainState
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.start import Start
from accel_trainer.training.world import going_on, has_batch_norm, has_dropout

log = logging.getLogger(__name__)


def take_up(loop: TrainingLoop, start: Start) -> None:
    """Bring a new loop to where the run was left. Weights that come without a state are in the model already."""
    if start.state is not None:
        if start.differences:
            _carry_over(loop, start.state, start.differences)
        else:
            _load_state(loop, start.state)
        _tell_of_another_world(loop, start.state)
    elif start.epoch:
        loop.progress.epoch = start.epoch
        loop.progress.global_step = start.epoch * loop.parts.sampling.steps_per_epoch
        loop.parts.schedule.skip(start.epoch - 1)
    loop.states.go_on_from(loop.progress)


def _load_state(loop: TrainingLoop, state: TrainState) -> None:
    """Go on from a state. The sums of an epoch's beginning go back to the ranks that had them."""
    loop.progress = replace(state.progress)
    loop.plain_model.load_state_dict(state.model)
    loop.optimizer.load_state_dict(state.trainer["optimizer"])
    loop.parts.schedule.load_state_dict(state.trainer["schedule"])
    _load_scaler(loop, state)
    loop.averages.load_state_dict(state.trainer.get("averages", {}))
    sums = state.trainer["sums"].to(loop.meter.sums)
    if state.num_processes == loop.world_size:
        loop.meter.sums.copy_(sums[loop.rank])
    else:
        loop.meter.sums.copy_(sums.sum(0) if loop.rank == 0 else torch.zeros_like(sums[0]))


def _load_scaler(loop: TrainingLoop, state: TrainState) -> None:
    if loop.accelerator.scaler is not None and state.trainer["scaler"]:
        loop.accelerator.scaler.load_state_dict(state.trainer["scaler"])


def _carry_over(loop: TrainingLoop, state: TrainState, differences: Changes) -> None:
    """Go on from the end of an epoch of another job: with its weights and the new parameters.

    The state is saved again at once: from the next attempt on nothing tells that the job has changed.
    """
    loop.progress = replace(state.progress)
    loop.plain_model.load_state_dict(state.model)
    _load_scaler(loop, state)
    keeps_optimizer = carry_optimizer_over(loop.job, differences, loop.optimizer, state.trainer["optimizer"])
    averages = averages_of_use(state.trainer.get("averages", {}), differences)
    loop.averages.load_state_dict(averages)
    if not measures_the_same(loop.job, differences):
        loop.progress.best = loop.progress.best_epoch = None
    for epoch in range(1, loop.progress.epoch):
        loop.step_schedule(epoch)
    loop.progress.best, loop.progress.best_epoch = best_so_far(loop.job, differences, loop.progress)
    loop.save_state()
    afresh = [] if keeps_optimizer else ["what the optimizer keeps"]
    afresh += [f"the {name} average" for name in loop.averages.state_dict() if name not in averages]
    afresh += ["the best epoch"] if loop.progress.best is None and state.progress.best is not None else []
    if afresh and loop.is_first:
        log.info("starting afresh: %s", ", ".join(afresh))


def _tell_of_another_world(loop: TrainingLoop, state: TrainState) -> None:
    model = loop.plain_model
    then = {"num_processes": state.num_processes, **state.trainer.get("world", {})}
    line = going_on(then, loop.world, has_batch_norm=has_batch_norm(model), has_dropout=has_dropout(model))
    if line is not None and loop.is_first and loop.progress.epoch < loop.job.num_epochs:
        log.info("%s", line)
