"""torch's schedulers by name, made as a job says: the warm-up, the main one, and SWA's."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from accel_trainer.config import ResolvedJob
from accel_trainer.config.parameters import SwaParameters
from accel_trainer.core.construct import construct, find_class, subclasses
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.training.optim.argument_types import check_arguments
from accel_trainer.training.optim.optimizer import lr_scale

_TAKES_FUNCTION = "it takes a function, which a job file cannot hold; MultiStepLR or ExponentialLR may do the same"
_TAKES_SCHEDULERS = "it takes other schedulers; give the first as warmup_scheduler and the second as scheduler"
_REFUSED = {
    "LambdaLR": _TAKES_FUNCTION,
    "MultiplicativeLR": _TAKES_FUNCTION,
    "SequentialLR": _TAKES_SCHEDULERS,
    "ChainedScheduler": _TAKES_SCHEDULERS,
}
SCHEDULERS = subclasses(lr_scheduler, lr_scheduler.LRScheduler, without=frozenset(_REFUSED))
_NO_WARMUP = {"ReduceLROnPlateau": "it waits for a metric to get worse, which is no way to warm up"}
WARMUPS = {name: kind for name, kind in SCHEDULERS.items() if name not in _NO_WARMUP}
# Arguments of schedulers that are learning rates: those that may be a list, one for each parameter group, and those
# that are one number for all of them.
RATE_ARGUMENTS = ("base_lr", "max_lr", "min_lr")
_SINGLE_RATES = ("eta_min", "eps")


def length_of(job: ResolvedJob, steps_per_epoch: int | None) -> int | None:
    """How many epochs or steps the job's schedule counts in all; None where those of an epoch are not known."""
    if job.schedule_by == "epoch":
        return job.num_epochs
    return None if steps_per_epoch is None else job.num_epochs * steps_per_epoch


def make_main(job: ResolvedJob, optimizer: Optimizer, length: int | None) -> lr_scheduler.LRScheduler:
    """The job's `scheduler`. length: as `length_of` gives it. Raises UserError."""
    find_class("scheduler", SCHEDULERS, job.scheduler, _REFUSED)
    args = check_arguments("scheduler", SCHEDULERS, job.scheduler, job.scheduler_args)
    args = _rates_of_groups("scheduler", args, optimizer)
    if args.get("last_epoch", -1) != -1:  # after a warm-up it would be ignored
        raise UserError("scheduler_args.last_epoch: a schedule begins at its first epoch; remove it")
    if job.scheduler == "OneCycleLR":
        args = _whole_cycle(job, args, length)
    if job.scheduler == "ReduceLROnPlateau":
        args.setdefault("mode", "max" if job.higher_is_better else "min")
        if _scales_differ(optimizer):
            # The least step, which would keep the rates of low layers from falling with the others.
            args.setdefault("eps", 0.0)
    scheduler: lr_scheduler.LRScheduler = construct("scheduler", SCHEDULERS, job.scheduler, args, optimizer)
    return scheduler


def make_warmup(job: ResolvedJob, name: str, optimizer: Optimizer) -> tuple[lr_scheduler.LRScheduler, int]:
    """The warm-up scheduler of that name with the job's arguments, and for how many epochs or steps it is used. Raises
    UserError."""
    length, args = _warmup_length(job, name)
    args = _rates_of_groups("warmup_scheduler", args, optimizer)
    if name == "OneCycleLR":
        args = _cycle_of_warmup(job, args, length)
    warmup: lr_scheduler.LRScheduler = construct("warmup_scheduler", WARMUPS, name, args, optimizer)
    return warmup, length


def warmup_length(job: ResolvedJob) -> int:
    """For how many epochs or steps the rates are those of the warm-up; 0 for none. Raises UserError."""
    return 0 if job.warmup_scheduler is None else _warmup_length(job, job.warmup_scheduler)[0]


def make_swa(swa: SwaParameters, rate: float, optimizer: Optimizer) -> SWALR:
    """SWALR, before its time. Without epochs to anneal over it sets the rate when it is made: that is undone."""
    rates = [group["lr"] for group in optimizer.param_groups]
    swa_lr: Any = [rate * lr_scale(group) for group in optimizer.param_groups]
    scheduler = SWALR(optimizer, swa_lr, swa.anneal_epochs, swa.anneal_strategy)
    for group, before in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = before
    return scheduler


def _warmup_length(job: ResolvedJob, name: str) -> tuple[int, dict[str, Any]]:
    """How long the warm-up lasts, and the arguments that its scheduler takes."""
    kind = find_class("warmup_scheduler", WARMUPS, name, {**_REFUSED, **_NO_WARMUP})
    args = dict(job.warmup_scheduler_args)
    parameters = inspect.signature(kind).parameters
    unit = "epochs" if job.schedule_by == "epoch" else "steps"
    if "total_iters" in parameters:
        length = args.get("total_iters", parameters["total_iters"].default)
    elif "total_iters" in args:
        length = args.pop("total_iters")
    else:
        raise UserError(f"warmup_scheduler_args: {name} needs total_iters here: the number of {unit} to warm up")
    mistakes = Mistakes()
    if type(length) is not int or length < 1:
        message = f"{length!r} is not a number of {unit}, 1 or more"
        hint = "for no warm-up remove warmup_scheduler"
        mistakes.found.append(Problem(message, key="warmup_scheduler_args.total_iters", hint=hint))
        args.pop("total_iters", None)
    checked = mistakes.of(lambda: check_arguments("warmup_scheduler", WARMUPS, name, args))
    mistakes.raise_found()
    return length, {} if checked is None else checked


def _whole_cycle(job: ResolvedJob, args: Mapping[str, Any], length: int | None) -> dict[str, Any]:
    """OneCycleLR's arguments with a `total_steps` that is the length of the training, without its warm-up: a longer
    cycle would be cut off before its rates come down, and a shorter one has no rates for the end.

    What is absent of `epochs` and `steps_per_epoch` is that of the training, as torch documents both. Raises UserError.
    """
    given = {name: value for name, value in args.items() if value is not None}
    if job.rules < 2 and job.schedule_by == "epoch":  # a cycle could be longer than its run
        return given
    if length is None:
        return {"total_steps": job.num_epochs, **given} if "steps_per_epoch" not in given else given
    rest = max(length - warmup_length(job), 0) or length
    per_epoch = 1 if job.schedule_by == "epoch" else length // job.num_epochs
    if "total_steps" in given:
        total = given["total_steps"]
    elif "epochs" in given or "steps_per_epoch" in given:
        total = given.pop("epochs", job.num_epochs) * given.pop("steps_per_epoch", per_epoch)
    else:
        total = rest
    fails_in_rehearsal = total < 1 or (job.schedule_by == "epoch" and total < rest - 1)
    if total == rest or fails_in_rehearsal:
        return {**given, "total_steps": total}
    without_warmup = ", without the warm-up" if rest < length else ""
    if job.schedule_by == "epoch":
        raise UserError(
            f"scheduler_args: OneCycleLR: a cycle of {total} steps, but stepped by epoch it has {rest}"
            f"{without_warmup}; remove "
            'total_steps, epochs and steps_per_epoch: the cycle is then the training; or set schedule_by to "step"'
        )
    raise UserError(
        f"scheduler_args: OneCycleLR: a cycle of {total} steps, but the training has {rest} ({job.num_epochs} epochs "
        f"of {per_epoch} steps{without_warmup}); remove total_steps, epochs and "
        "steps_per_epoch: the cycle is then the training"
    )


def _cycle_of_warmup(job: ResolvedJob, args: Mapping[str, Any], length: int) -> dict[str, Any]:
    """OneCycleLR's arguments with a `total_steps`: by default the warm-up is the whole cycle. Raises UserError."""
    given = {name: value for name, value in args.items() if value is not None}
    if given.keys().isdisjoint({"total_steps", "epochs", "steps_per_epoch"}):
        given["total_steps"] = length
    # By epoch, a cycle that ends too early fails in the rehearsal.
    if job.schedule_by == "step" and (total := given.get("total_steps", length)) < length:
        raise UserError(f"warmup_scheduler_args: OneCycleLR: a cycle of {total} steps, for a warm-up of {length}")
    return given


def _rates_of_groups(key: str, args: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A scheduler's arguments with a list for each learning rate in them, so that every layer keeps its scale."""
    args = dict(args)
    if not _scales_differ(optimizer):
        return args
    for name in (name for name in _SINGLE_RATES if args.get(name, 0) != 0):
        raise UserError(f"{key}_args.{name}: would be the same for all layers, against layer_decay; leave it at 0")
    for name in (name for name in RATE_ARGUMENTS if name in args):
        if not isinstance(args[name], int | float):
            raise UserError(f"{key}_args.{name}: with layer_decay it is one number, the rate of the output layer")
        args[name] = [args[name] * lr_scale(group) for group in optimizer.param_groups]
    return args


def _scales_differ(optimizer: Optimizer) -> bool:
    return any(lr_scale(group) != 1 for group in optimizer.param_groups)
