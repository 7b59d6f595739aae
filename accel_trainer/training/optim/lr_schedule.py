"""Learning rates over epochs: any scheduler of torch by name, stepped once after every epoch."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from accel_trainer.config import ResolvedJob
from accel_trainer.config.parameters import SwaParameters
from accel_trainer.core.construct import construct, find_class, subclasses
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import first_line
from accel_trainer.training.optim.optimizer import construct_optimizer, lr_scale

# These take functions or other schedulers, which a job file cannot give.
_NOT_FROM_JSON = frozenset({"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"})
SCHEDULERS = subclasses(lr_scheduler, lr_scheduler.LRScheduler, without=_NOT_FROM_JSON)
# The plateau waits for metrics to get worse, which is no way to warm up.
WARMUPS = {name: kind for name, kind in SCHEDULERS.items() if name != "ReduceLROnPlateau"}
# Arguments of schedulers that are learning rates: those that may be a list, one for each parameter group, and those
# that are one number for all of them.
_RATES = ("base_lr", "max_lr", "min_lr")
_SINGLE_RATES = ("eta_min", "eps")


class LRSchedule(Protocol):
    """Sets the learning rate of an optimizer, once between two epochs."""

    def step(self, primary_metric: float) -> None:
        """Set the rate of the next epoch; primary_metric: of the last validation."""
        ...

    def skip(self, epochs: int) -> None:
        """Step over epochs whose metric is unknown."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        ...


class EpochSchedule:
    """Any scheduler that counts epochs."""

    def __init__(self, scheduler: lr_scheduler.LRScheduler) -> None:
        self._scheduler = scheduler

    def step(self, primary_metric: float) -> None:
        """Set the rate of the next epoch, whatever the metric."""
        self.skip(1)

    def skip(self, epochs: int) -> None:
        """Step once for each epoch."""
        with warnings.catch_warnings():
            # torch warns of a schedule that is ahead of its optimizer: a resumed one's steps were in another process.
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(epochs):
                self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """That of the scheduler, without functions."""
        # In older versions of torch that of SWALR has a function, which the restricted unpickler refuses.
        return {key: value for key, value in self._scheduler.state_dict().items() if not callable(value)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._scheduler.load_state_dict(state)


class PlateauSchedule(EpochSchedule):
    """ReduceLROnPlateau, which steps by the metric of the validation."""

    _scheduler: lr_scheduler.ReduceLROnPlateau

    def step(self, primary_metric: float) -> None:
        """Set the rate of the next epoch by the metric of the last validation."""
        self._scheduler.step(primary_metric)

    def skip(self, epochs: int) -> None:
        """Without a metric nothing changes."""


class ChainedSchedule:
    """One schedule for the first `num_steps` steps between epochs, and from then on another, which has seen none of
    them."""

    def __init__(self, first: LRSchedule, num_steps: int, second: LRSchedule) -> None:
        self._first, self._num_steps, self._second = first, num_steps, second
        self._steps = 0

    def step(self, primary_metric: float) -> None:
        """Step the schedule that is active."""
        (self._first if self._steps < self._num_steps else self._second).step(primary_metric)
        self._steps += 1

    def skip(self, epochs: int) -> None:
        """Step over epochs, each with the schedule that was active in it."""
        of_first = min(epochs, max(0, self._num_steps - self._steps))
        self._first.skip(of_first)
        self._second.skip(epochs - of_first)
        self._steps += epochs

    def state_dict(self) -> dict[str, Any]:
        """The states of both, and the number of steps."""
        return {"steps": self._steps, "first": self._first.state_dict(), "second": self._second.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps = state["steps"]
        self._first.load_state_dict(state["first"])
        self._second.load_state_dict(state["second"])


def make_schedule(job: ResolvedJob, optimizer: Optimizer) -> LRSchedule:
    """The job's learning rates for this optimizer: the warm-up if there is one, the scheduler, and SWA's rate.

    All objects are new: to resume, load the states of the optimizer and of the schedule into them. Raises UserError
    for what would fail in any of the job's epochs.

    Warm-up: torch's SequentialLR. The scheduler's own epochs count from the end of the warm-up. ReduceLROnPlateau,
    which SequentialLR does not take, finds the optimizer's own rate in the first epoch after the warm-up; the metric
    of that epoch is the first that it sees, since rates that rise say nothing about where learning stops.

    SWA: torch's SWALR takes the scheduler's place as in its documentation, which steps it after each epoch whose
    weights are averaged: epoch `swa.start`, the first of them, still has the scheduler's rate (and momentum, which
    stays). The rate first moves in the epoch after it and is `swa.swa_lr` from epoch start + anneal_epochs on; with 0
    from epoch start + 1.
    """
    _rehearse(job, optimizer)
    return _make_schedule(job, optimizer)


def _rehearse(job: ResolvedJob, optimizer: Optimizer) -> None:
    """Go through all epochs with an optimizer of the same groups: some arguments fail only when a scheduler steps."""
    groups = [
        {**group, "params": [torch.zeros(2, 2, requires_grad=True, device="cpu")]} for group in optimizer.param_groups
    ]
    schedule = _make_schedule(job, construct_optimizer(job, groups))
    num_warmup = (
        0 if job.warmup_scheduler is None else _warmup_epochs(job.warmup_scheduler, job.warmup_scheduler_args)[0]
    )
    for epoch in range(1, job.num_epochs):
        try:
            schedule.step(0.0)
        except Exception as error:
            key = "warmup_scheduler" if epoch < num_warmup else "scheduler"
            raise UserError(f"{key}_args: {getattr(job, key)}: {first_line(error)}") from error


def _make_schedule(job: ResolvedJob, optimizer: Optimizer) -> LRSchedule:
    schedule = _warmup_and_main(job, optimizer)
    if job.swa is None or job.swa.swa_lr is None:
        return schedule
    return ChainedSchedule(schedule, job.swa.start - 1, EpochSchedule(_make_swa(job.swa, job.swa.swa_lr, optimizer)))


def _warmup_and_main(job: ResolvedJob, optimizer: Optimizer) -> LRSchedule:
    if job.warmup_scheduler is None:
        main = _make_main(job, optimizer)
        return PlateauSchedule(main) if isinstance(main, lr_scheduler.ReduceLROnPlateau) else EpochSchedule(main)
    num_epochs, args = _warmup_epochs(job.warmup_scheduler, job.warmup_scheduler_args)
    args = _rates_of_groups("warmup_scheduler", args, optimizer)
    warmup = construct("warmup_scheduler", WARMUPS, job.warmup_scheduler, args, optimizer)
    main = _make_main(job, optimizer)
    if not isinstance(main, lr_scheduler.ReduceLROnPlateau):
        return EpochSchedule(lr_scheduler.SequentialLR(optimizer, [warmup, main], [num_epochs]))
    own_rate = lr_scheduler.ConstantLR(optimizer, factor=1.0)
    to_own_rate = lr_scheduler.SequentialLR(optimizer, [warmup, own_rate], [num_epochs])
    return ChainedSchedule(EpochSchedule(to_own_rate), num_epochs, PlateauSchedule(main))


def _make_main(job: ResolvedJob, optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    args = _rates_of_groups("scheduler", job.scheduler_args, optimizer)
    if args.get("last_epoch", -1) != -1:  # after a warm-up it would be ignored
        raise UserError("scheduler_args.last_epoch: a schedule begins at its first epoch; remove it")
    if job.scheduler == "ReduceLROnPlateau":
        args.setdefault("mode", "max" if job.higher_is_better else "min")
        if _scales_differ(optimizer):
            # The least step, which would keep the rates of low layers from falling with the others.
            args.setdefault("eps", 0.0)
    scheduler: lr_scheduler.LRScheduler = construct("scheduler", SCHEDULERS, job.scheduler, args, optimizer)
    return scheduler


def _warmup_epochs(name: str, args: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """How many epochs the warm-up lasts, and the arguments that its scheduler takes."""
    args = dict(args)
    parameters = inspect.signature(find_class("warmup_scheduler", WARMUPS, name)).parameters
    if "total_iters" in parameters:
        num_epochs = args.get("total_iters", parameters["total_iters"].default)
    elif "total_iters" in args:
        num_epochs = args.pop("total_iters")
    else:
        raise UserError(f"warmup_scheduler_args: {name} needs total_iters here: the number of epochs to warm up")
    if type(num_epochs) is not int or num_epochs < 1:
        raise UserError(
            f"warmup_scheduler_args.total_iters: {num_epochs!r} is not a number of epochs, 1 or more; "
            "for no warm-up remove warmup_scheduler"
        )
    return num_epochs, args


def _make_swa(swa: SwaParameters, rate: float, optimizer: Optimizer) -> SWALR:
    """SWALR, before its time. Without epochs to anneal over it sets the rate when it is made: that is undone."""
    rates = [group["lr"] for group in optimizer.param_groups]
    swa_lr: Any = [rate * lr_scale(group) for group in optimizer.param_groups]
    scheduler = SWALR(optimizer, swa_lr, swa.anneal_epochs, swa.anneal_strategy)
    for group, before in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = before
    return scheduler


def _rates_of_groups(key: str, args: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A scheduler's arguments with a list for each learning rate in them, so that every layer keeps its scale."""
    args = dict(args)
    if not _scales_differ(optimizer):
        return args
    for name in (name for name in _SINGLE_RATES if args.get(name, 0) != 0):
        raise UserError(f"{key}_args.{name}: would be the same for all layers, against layer_decay; leave it at 0")
    for name in (name for name in _RATES if name in args):
        if not isinstance(args[name], int | float):
            raise UserError(f"{key}_args.{name}: with layer_decay it is one number, the rate of the output layer")
        args[name] = [args[name] * lr_scale(group) for group in optimizer.param_groups]
    return args


def _scales_differ(optimizer: Optimizer) -> bool:
    return any(lr_scale(group) != 1 for group in optimizer.param_groups)
