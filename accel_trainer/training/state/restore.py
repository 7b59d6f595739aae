"""How a run goes on: of the same job bit for bit, of a changed one with what it may keep."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer

from accel_trainer.config import ResolvedJob
from accel_trainer.config.derived import parameters
from accel_trainer.config.diff import Changes
from accel_trainer.config.marks import ChangesMetrics
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.optim.optimizer import optimizer_state_keys
from accel_trainer.training.runtime.environment import describe_change, has_batch_norm, has_dropout
from accel_trainer.training.state.checkpoint import Progress, TrainState
from accel_trainer.training.state.starting_point import StartingPoint

log = logging.getLogger(__name__)


def restore(loop: TrainingLoop, start: StartingPoint) -> None:
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
    keeps_optimizer = restore_optimizer(loop.job, differences, loop.optimizer, state.trainer["optimizer"])
    averages = reusable_averages(state.trainer.get("averages", {}), differences)
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
    line = describe_change(then, loop.world, has_batch_norm=has_batch_norm(model), has_dropout=has_dropout(model))
    if line is not None and loop.is_first and loop.progress.epoch < loop.job.num_epochs:
        log.info("%s", line)


# What the number of an optimizer's parameters and their order follow from.
GROUPED_BY = parameters(lambda mark: mark.decides_groups)
# What a validation measures follows from these, whatever the loss is.
MEASURED_BY = parameters(lambda mark: mark.changes_metrics is ChangesMetrics.ALWAYS)
# And from these, where the validation sees images as the training does, or where the metric is the loss.
AUGMENTED_BY = parameters(lambda mark: mark.changes_metrics is ChangesMetrics.AUGMENTED)
LOSS_FOLLOWS_FROM = parameters(lambda mark: mark.changes_metrics is ChangesMetrics.LOSS)


def restore_optimizer(job: ResolvedJob, differences: Changes, optimizer: Optimizer, saved: Mapping[str, Any]) -> bool:
    """Give the job's optimizer what another has kept of each parameter, such as momentum, if that fits; whether it
    does. Its own hyper-parameters stay."""
    if not GROUPED_BY.isdisjoint(differences):
        return False
    wanted = optimizer_state_keys(job, optimizer)
    if any(not wanted[index] <= kept.keys() for index, kept in saved["state"].items()):
        return False
    optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})
    return True


def reusable_averages(averages: Mapping[str, Any], differences: Changes) -> dict[str, Any]:
    """Not a stochastic average of epochs from another first one on."""
    then, now = differences.get("swa", (None, None))
    is_of_others = then is not None and now is not None and then["start"] != now["start"]
    return {name: state for name, state in averages.items() if not (is_of_others and name == "swa")}


def measures_the_same(job: ResolvedJob, differences: Changes) -> bool:
    """Whether values of the primary metric can be compared with those from before. Contrastive validations see images
    as in training, and clips are blurred."""
    measured_by = set(MEASURED_BY)
    if job.is_contrastive or job.video:
        measured_by |= AUGMENTED_BY
    if job.is_contrastive or job.primary_metric == job.criterion:
        measured_by |= LOSS_FOLLOWS_FROM
    return measured_by.isdisjoint(differences)


def best_so_far(job: ResolvedJob, differences: Changes, progress: Progress) -> tuple[float | None, int | None]:
    """The best value of the primary metric and its epoch; none where that is not the one whose weights are kept."""
    if "primary_metric" not in differences:
        return progress.best, progress.best_epoch
    column = "loss" if job.primary_metric == job.criterion else job.primary_metric
    of_epochs = {row["epoch"]: row.get(column, math.nan) for row in progress.history if row["split"] == "val"}
    values = [value for value in of_epochs.values() if not math.isnan(value)]
    best = (max if job.higher_is_better else min)(values, default=math.nan)
    is_kept = progress.best_epoch is not None and of_epochs.get(progress.best_epoch) == best
    return (best, progress.best_epoch) if is_kept else (None, None)
