"""What optimizer and schedule a job comes to, in a line each, for people."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.config.schedule_doubts import step_that_never_comes
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


# At how many moments of a training its rates are looked at, at most.
NUM_SAMPLED = 100
# Arguments of schedulers that may be lists, a number for each parameter group.
_PER_GROUP = (*RATE_ARGUMENTS, "base_momentum", "max_momentum")


def _has_rates_of_groups(job: Job) -> bool:
    return any(
        isinstance(args.get(key), list)
        for args in (job.scheduler_args, job.warmup_scheduler_args)
        for key in _PER_GROUP
    )


def schedule_line(job: Job, course: "Course") -> str:
    """The schedule, and its rates at the start, after a quarter, half and three quarters of the epochs, and last.

    course: that of the same job. Raises UserError.
    """
    resolved, steps_per_epoch = job.with_placeholders(job.num_views), course.steps_per_epoch
    name = f"{job.scheduler} by {job.schedule_by}"
    if job.warmup_scheduler is not None:
        name += f" after {warmup_length(resolved)} {job.schedule_by}s of {job.warmup_scheduler}"
    if job.swa is not None and job.swa.swa_lr is not None:
        name += f", SWA to lr {job.swa.swa_lr:g} after epoch {job.swa.start}"
    if job.lr_rule is not None:
        return f"{name}: its rates follow from lr, which is found before training"
    if job.schedule_by == "step" and steps_per_epoch is None:
        return f"{name}: its rates follow from the number of steps in an epoch, which is not known yet"
    if _has_rates_of_groups(job):
        return f"{name}: its rates are those of each parameter group"
    planned = course.planned_rates()
    known = [rate for rate in planned if rate.rate is not None]
    shown = [_when(rate, job.num_epochs) for rate in known]
    if len(known) < len(planned):
        shown.append(f"then lowered when {job.primary_metric} no longer improves: not known before")
    never = step_that_never_comes(job, steps_per_epoch)
    return f"{name}: lr {', '.join(shown)}" + (f"; step_size: {never}" if never else "")


def _when(planned: PlannedRate, num_epochs: int) -> str:
    rate = f"{planned.rate:.4g}"
    if planned.epochs_done == 0:
        return f"{rate} at the start"
    return (
        f"{rate} in the last epoch"
        if planned.epochs_done == num_epochs - 1
        else (f"{rate} after {planned.epochs_done}")
    )


class Course:
    """The full learning rates over the training of a job. A schedule is walked through once, whoever asks for what."""

    def __init__(self, job: Job, optimizer: Optimizer, steps_per_epoch: int | None) -> None:
        """optimizer: whose parameter groups count. steps_per_epoch: None where it is not known. A rate that is yet to
        be found is some number."""
        self.steps_per_epoch = steps_per_epoch
        self._job, self._optimizer = job.with_placeholders(job.num_views), optimizer

    def planned_rates(self) -> list[PlannedRate]:
        """Those at the start, after a quarter, half and three quarters of the epochs, and in the last one. Raises
        UserError."""
        num_epochs = self._job.num_epochs
        last = num_epochs - 1
        epochs = sorted({0, num_epochs // 4, num_epochs // 2, 3 * num_epochs // 4, last})
        if (rates := self._of_steps) is not None:
            steps = [rates.num_steps - 1 if epoch == last else epoch * rates.steps_per_epoch for epoch in epochs]
            return [PlannedRate(epoch, rates.at(step)) for epoch, step in zip(epochs, steps, strict=True)]
        known = self._of_epochs
        return [PlannedRate(epoch, known[epoch] if epoch < len(known) else None) for epoch in epochs]

    def sampled_rates(self) -> list[float] | None:
        """Those at up to 100 moments at equal distances, or as far as they are known; None where they are not: by step,
        without the number of steps, and with rates of each parameter group. Raises UserError."""
        if _has_rates_of_groups(self._job):
            return None
        if (rates := self._of_steps) is not None:
            return [rates.at(step) for step in _spread(rates.num_steps)]
        if self._job.schedule_by == "step":
            return None
        return [self._of_epochs[epoch] for epoch in _spread(len(self._of_epochs))]

    @cached_property
    def _of_epochs(self) -> list[float]:
        return _rates_of_epochs(self._job, self._optimizer, self.steps_per_epoch)

    @cached_property
    def _of_steps(self) -> "_StepRates | None":
        if self._job.schedule_by != "step" or self.steps_per_epoch is None:
            return None
        return _StepRates(self._job, self._optimizer, self.steps_per_epoch)


def _spread(number: int) -> list[int]:
    """Up to NUM_SAMPLED of the numbers below that one, with the first and the last."""
    most = min(number, NUM_SAMPLED)
    return [round(n * (number - 1) / max(1, most - 1)) for n in range(most)]


def _rates_of_epochs(job: ResolvedJob, optimizer: Optimizer, steps_per_epoch: int | None) -> list[float]:
    """Those of all epochs, or of the first ones, as many as do not depend on a metric."""
    num_known = job.num_epochs
    if job.scheduler == "ReduceLROnPlateau":
        num_known = min(num_known, warmup_length(job) + 1)
    stand_in = stand_in_optimizer(job, optimizer)
    schedule = assemble_schedule(job, stand_in, steps_per_epoch)
    rates = [learning_rate(stand_in)]
    for _ in range(1, num_known):
        schedule.step(0.0)
        rates.append(learning_rate(stand_in))
    return rates


class _StepRates:
    """The rates of a schedule by step, in any step without all those before: an epoch may have thousands. To within
    rounding errors."""

    def __init__(self, job: ResolvedJob, optimizer: Optimizer, steps_per_epoch: int) -> None:
        self._job, self._optimizer, self.steps_per_epoch = job, optimizer, steps_per_epoch
        self.num_steps = job.num_epochs * steps_per_epoch
        self._num_warmup, self._warmup, self._walked = 0, None, list[Sequence[float]]()
        # One for both, and in the order of the training: some schedulers rewrite the rate that the other begins with.
        stand_in = self._stand_in()
        if job.warmup_scheduler is not None:
            self._warmup, self._num_warmup = make_warmup(job, job.warmup_scheduler, stand_in)
        first_rates = [group.get("initial_lr") for group in stand_in.param_groups]
        self._main = make_main(job, stand_in, length_of(job, steps_per_epoch))
        if self._warmup is not None and first_rates != [group["initial_lr"] for group in stand_in.param_groups]:
            self._walked = self._walk_warmup()

    def _walk_warmup(self) -> list[Sequence[float]]:
        """The rates of its groups in each step: it begins with a rate that is not its own, so that no formula holds."""
        num_steps = min(self._num_warmup, self.num_steps)
        stand_in = self._stand_in()
        schedule = assemble_schedule(self._job, stand_in, self.steps_per_epoch)
        rates: list[Sequence[float]] = []
        for _ in range(num_steps):
            schedule.replay_steps(1)
            rates.append([float(group["lr"]) for group in stand_in.param_groups])
        return rates

    def _stand_in(self) -> Optimizer:
        return stand_in_optimizer(self._job, self._optimizer)

    def at(self, step: int) -> float:
        """The full rate in a step, from 0."""
        swa, stand_in = self._job.swa, self._stand_in()
        past = -1 if swa is None or swa.swa_lr is None else step // self.steps_per_epoch - swa.start
        if swa is None or swa.swa_lr is None or past < 0:
            _set_rates(stand_in, self._of_groups(step))
            return learning_rate(stand_in)
        schedule = make_swa(swa, swa.swa_lr, stand_in)
        _set_rates(stand_in, self._of_groups(swa.start * self.steps_per_epoch - 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(past + 1):
                schedule.step()
        return learning_rate(stand_in)

    def _of_groups(self, step: int) -> Sequence[float]:
        """Of each parameter group, by the warm-up and the main scheduler."""
        if step < len(self._walked):
            return self._walked[step]
        if self._warmup is not None and step < self._num_warmup:
            return _jumped(self._warmup, step)
        return _jumped(self._main, step - self._num_warmup)


def _set_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _jumped(scheduler: lr_scheduler.LRScheduler, step: int) -> Sequence[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch, which prefers one step after the other
        scheduler.step(step)
    return [float(group["lr"]) for group in scheduler.optimizer.param_groups]
