"""What a run whose job has changed may keep of its state."""

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from accel_trainer.config import ResolvedJob
from accel_trainer.config.derived import parameters
from accel_trainer.config.diff import Changes
from accel_trainer.config.marks import ChangesMetrics
from accel_trainer.training.optim.optimizer import optimizer_state_keys
from accel_trainer.training.state.checkpoint import Progress

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
    of_epochs = {row.epoch: row.scores.get(column, math.nan) for row in progress.history if row.split == "val"}
    values = [value for value in of_epochs.values() if not math.isnan(value)]
    best = (max if job.higher_is_better else min)(values, default=math.nan)
    is_kept = progress.best_epoch is not None and of_epochs.get(progress.best_epoch) == best
    return (best, progress.best_epoch) if is_kept else (None, None)
