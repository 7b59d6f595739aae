"""Going on with a run whose job has changed: what of a state is of use to the new job, and what starts afresh."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from accel_trainer.config import Job
from accel_trainer.config.diff import Changes
from accel_trainer.config.parameters import DataParameters
from accel_trainer.training.checkpoint import Progress
from accel_trainer.training.schedule import kept_of_each

# What the number of an optimizer's parameters and their order follow from.
GROUPED_BY = frozenset(
    {
        "architecture",
        "architecture_args",
        "decay_norm_and_bias",
        "finetune",
        "finetune_args",
        "layer_decay",
        "optimizer",
    }
)
# What a validation measures follows from these, whatever the loss is.
MEASURED_BY = frozenset(
    {"class_subset", "dataset", "image_column", "image_size", "label_column", "loss_cycle", "video"}
)


def misfit(weights: Mapping[str, Tensor], model: nn.Module) -> str | None:
    """The first way in which weights do not fit a model, or None if they do."""
    own = model.state_dict()
    for name in [*own, *weights]:
        if name not in weights:
            return f"{name} is missing"
        if name not in own:
            return f"{name} has no place"
        if own[name].shape != weights[name].shape:
            return f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
    return None


def carry_optimizer_over(job: Job, differences: Changes, optimizer: Optimizer, saved: Mapping[str, Any]) -> bool:
    """Give the job's optimizer what another has kept of each parameter, such as momentum, if that fits; whether it
    does. Its own hyper-parameters stay."""
    if not GROUPED_BY.isdisjoint(differences):
        return False
    wanted = kept_of_each(job, optimizer)
    if any(not wanted[index] <= kept.keys() for index, kept in saved["state"].items()):
        return False
    optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})
    return True


def averages_of_use(averages: Mapping[str, Any], differences: Changes) -> dict[str, Any]:
    """Not a stochastic average of epochs from another first one on."""
    then, now = differences.get("swa", (None, None))
    is_of_others = then is not None and now is not None and then["start"] != now["start"]
    return {name: state for name, state in averages.items() if not (is_of_others and name == "swa")}


def measures_the_same(job: Job, differences: Changes) -> bool:
    """Whether values of the primary metric can be compared with those from before. Contrastive validations see images
    as in training, and clips are blurred."""
    measured_by = set(MEASURED_BY)
    if job.is_contrastive or job.video:
        measured_by |= {*DataParameters.model_fields, "seed"}
    if job.is_contrastive or job.primary_metric == job.criterion:
        measured_by |= {"criterion", "criterion_args"}
    return measured_by.isdisjoint(differences)


def best_so_far(job: Job, differences: Changes, progress: Progress) -> tuple[float | None, int | None]:
    """The best value of the primary metric and its epoch; none where that is not the one whose weights are kept."""
    if "primary_metric" not in differences:
        return progress.best, progress.best_epoch
    column = "loss" if job.primary_metric == job.criterion else job.primary_metric
    of_epochs = {row["epoch"]: row.get(column, math.nan) for row in progress.history if row["split"] == "val"}
    values = [value for value in of_epochs.values() if not math.isnan(value)]
    best = (max if job.higher_is_better else min)(values, default=math.nan)
    is_kept = progress.best_epoch is not None and of_epochs.get(progress.best_epoch) == best
    return (best, progress.best_epoch) if is_kept else (None, None)
