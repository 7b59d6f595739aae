"""What optimizer and schedule a job comes to, in a line each, for people."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.training.optim.lr_schedule import assemble_schedule, stand_in_optimizer
from accel_trainer.training.optim.optimizer import learning_rate
from accel_trainer.training.optim.schedulers import (
    RATE_ARGUMENTS,
    length_of,
    make_main,
    make_swa,
    make_warmup,
    warmup_length,
)

# Which implementation torch takes, where it is not said, depends on the device.
_CHOSEN_BY_TORCH = ("foreach", "fused")


def optimizer_line(job: Job, optimizer: Optimizer) -> str:
    """The optimizer with all its settings, as they are in the object: those that a schedule changes as they were given.
    A learning rate that is yet to be found is named by its rule."""
    group = optimizer.param_groups[0]
    settings = {**optimizer.defaults, **{name: group[name] for name in _CHOSEN_BY_TORCH if name in group}}
    if job.lr_rule is not None:
        settings["lr"] = job.lr_rule
    parts = [f"{job.optimizer}: " + ", ".join(f"{name} {_shown(name, value)}" for name, value in settings.items())]
    if job.layer_decay is not None:
        parts.append(f"each layer has {job.layer_decay:g} of the lr of the layer above it")
    if not job.decay_norm_and_bias:
        parts.append("no weight decay of biases and norms")
    if job.clip_grad_norm is not None:
        parts.append(f"gradients clipped to {job.clip_grad_norm:g}")
    return "; ".join(parts)


def _shown(name: str, value: Any) -> str:
    match value:
        case None:
            return "auto" if name in _CHOSEN_BY_TORCH else "none"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:.6g}"
        case tuple() | list():
            return f"[{', '.join(_shown(name, part) for part in value)}]"
        case _:
            return str(value)


@dataclass(frozen=True)
class PlannedRate:
    """The full learning rate after so many epochs; None where it depends on a metric. Of the last epoch, by step, that
    of its last step."""

    epochs_done: int
    rate: float | None


# Arguments of schedulers that may be lists, a number for each parameter group.
_PER_GROUP = (*RATE_ARGUMENTS, "base_momentum", "max_momentum")


def _schedulers_args(job: Job) -> list[dict[str, Any]]:
    return [job.scheduler_args, job.warmup_scheduler_args]


def schedule_line(job: Job, optimizer: Optimizer, steps_per_epoch: int | None) -> str:
    """The schedule, and its rates at the start, after a quarter, half and three quarters of the epochs, and last.

    optimizer: whose parameter groups count. steps_per_epoch: None where it is not known. Raises UserError.
    """
    resolved = job.with_placeholders(job.num_views)
    name = f"{job.scheduler} by {job.schedule_by}"
    if job.warmup_scheduler is not None:
        name += f" after {warmup_length(resolved)} {job.schedule_by}s of {job.warmup_scheduler}"
    if job.swa is not None and job.swa.swa_lr is not None:
        name += f", SWA to lr {job.swa.swa_lr:g} after epoch {job.swa.start}"
    if job.lr_rule is not None:
        return f"{name}: its rates follow from lr, which is found before training"
    if job.schedule_by == "step" and steps_per_epoch is None:
        return f"{name}: its rates follow from the number of steps in an epoch, which is not known yet"
    if any(isinstance(args.get(key), list) for args in _schedulers_args(job) for key in _PER_GROUP):
        return f"{name}: its rates are those of each parameter group"
    planned = planned_rates(resolved, optimizer, steps_per_epoch)
    known = [rate for rate in planned if rate.rate is not None]
    shown = [_when(rate, job.num_epochs) for rate in known]
    if len(known) < len(planned):
        shown.append(f"then lowered when {job.primary_metric} no longer improves: not known before")
    return f"{name}: lr {', '.join(shown)}"


def _when(planned: PlannedRate, num_epochs: int) -> str:
    rate = f"{planned.rate:.4g}"
    if planned.epochs_done == 0:
        return f"{rate} at the start"
    return (
        f"{rate} in the last epoch"
        if planned.epochs_done == num_epochs - 1
        else (f"{rate} after {planned.epochs_done}")
    )


def planned_rates(job: ResolvedJob, optimizer: Optimizer, steps_per_epoch: int | None) -> list[PlannedRate]:
    """The rates at the start, after a quarter, half and three quarters of the epochs, and in the last one."""
    last = job.num_epochs - 1
    epochs = sorted({0, job.num_epochs // 4, job.num_epochs // 2, 3 * job.num_epochs // 4, last})
    if job.schedule_by == "step" and steps_per_epoch is not None:
        length = length_of(job, steps_per_epoch)
        steps = [job.num_epochs * steps_per_epoch - 1 if epoch == last else epoch * steps_per_epoch for epoch in epochs]
        return [
            PlannedRate(epoch, _rate_in_step(job, optimizer, step, length, steps_per_epoch))
            for epoch, step in zip(epochs, steps, strict=True)
        ]
    stand_in = stand_in_optimizer(job, optimizer)
    schedule = assemble_schedule(job, stand_in, steps_per_epoch)
    rates: list[float] = []
    for epoch in range(job.num_epochs):
        if epoch:
            schedule.step(0.0)
        rates.append(learning_rate(stand_in))
    is_known = _all_known if job.scheduler != "ReduceLROnPlateau" else lambda epoch: epoch <= warmup_length(job)
    return [PlannedRate(epoch, rates[epoch] if is_known(epoch) else None) for epoch in epochs]


def _all_known(epoch: int) -> bool:
    return True


def _rate_in_step(job: ResolvedJob, optimizer: Optimizer, step: int, length: int | None, steps_per_epoch: int) -> float:
    """Without all steps before: an epoch may have thousands. To within rounding errors."""
    if job.swa is not None and job.swa.swa_lr is not None and (past := step // steps_per_epoch - job.swa.start) >= 0:
        stand_in = stand_in_optimizer(job, optimizer)
        swa = make_swa(job.swa, job.swa.swa_lr, stand_in)
        for group, rate in zip(
            stand_in.param_groups,
            _rates_in_step(job, optimizer, job.swa.start * steps_per_epoch - 1, length),
            strict=True,
        ):
            group["lr"] = rate
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(past + 1):
                swa.step()
        return learning_rate(stand_in)
    stand_in = stand_in_optimizer(job, optimizer)
    for group, rate in zip(stand_in.param_groups, _rates_in_step(job, optimizer, step, length), strict=True):
        group["lr"] = rate
    return learning_rate(stand_in)


def _rates_in_step(job: ResolvedJob, optimizer: Optimizer, step: int, length: int | None) -> Sequence[float]:
    """Of each parameter group, by the warm-up and the main scheduler."""
    stand_in = stand_in_optimizer(job, optimizer)
    num_warmup = 0
    if job.warmup_scheduler is not None:
        warmup, num_warmup = make_warmup(job, job.warmup_scheduler, stand_in)
        if step < num_warmup:
            return _jumped(warmup, step, stand_in)
    return _jumped(make_main(job, stand_in, length), step - num_warmup, stand_in)


def _jumped(scheduler: lr_scheduler.LRScheduler, step: int, optimizer: Optimizer) -> Sequence[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch, which prefers one step after the other
        scheduler.step(step)
    return [float(group["lr"]) for group in optimizer.param_groups]
