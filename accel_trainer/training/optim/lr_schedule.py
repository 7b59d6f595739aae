"""Learning rates over epochs, or over optimizer steps: any scheduler of torch by name."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.optim import Optimizer, lr_scheduler

from accel_trainer.config import ResolvedJob
from accel_trainer.core.errors import UserError
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.core.text import first_line
from accel_trainer.training.optim.optimizer import construct_optimizer
from accel_trainer.training.optim.schedulers import (
    SCHEDULERS as SCHEDULERS,
)
from accel_trainer.training.optim.schedulers import (
    length_of,
    make_main,
    make_swa,
    make_warmup,
)

# Of a schedule by step: what fails with an argument fails in its first steps.
REHEARSED_STEPS = 100


class LRSchedule(Protocol):
    """Sets the learning rate of an optimizer: once between two epochs, or once between two of its steps.

    The loop calls all of these, whatever the schedule counts.
    """

    def step(self, primary_metric: float) -> None:
        """Set the rate of the next epoch; primary_metric: of the last validation."""
        ...

    def skip(self, epochs: int) -> None:
        """Set the rate of a later epoch, where the metrics between are unknown."""
        ...

    def before_step(self) -> None:
        """Set the rate of the optimizer step that comes."""
        ...

    def after_step(self, *, is_taken: bool) -> None:
        """Count a step of the optimizer; is_taken: not where a loss scaler has skipped it."""
        ...

    def replay_steps(self, number: int) -> None:
        """Go through optimizer steps that were taken already."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises UserError where that was of a training of another length and the
        schedule is made for one length."""
        ...


@contextmanager
def _in_any_order() -> Iterator[None]:
    """torch warns of a schedule that is ahead of its optimizer: a resumed one's steps were in another process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


class EpochSchedule:
    """Any scheduler that counts epochs."""

    def __init__(self, scheduler: lr_scheduler.LRScheduler) -> None:
        self._scheduler = scheduler

    def step(self, primary_metric: float) -> None:
        """Set the rate of the next epoch, whatever the metric."""
        self.skip(1)

    def skip(self, epochs: int) -> None:
        """Step once for each epoch."""
        with _in_any_order():
            for _ in range(epochs):
                self._scheduler.step()

    def before_step(self) -> None:
        """The rate is that of the epoch."""

    def after_step(self, *, is_taken: bool) -> None:
        """Steps are not counted."""

    def replay_steps(self, number: int) -> None:
        """Steps are not counted."""

    def state_dict(self) -> dict[str, Any]:
        """That of the scheduler, without functions."""
        return _plain_state(self._scheduler)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        _load(self._scheduler, state)


class PlateauSchedule(EpochSchedule):
    """ReduceLROnPlateau, which steps by the metric of the validation."""

    _scheduler: lr_scheduler.ReduceLROnPlateau

    def step(self, primary_metric: float) -> None:
        """Set the rate of the next epoch by the metric of the last validation."""
        self._scheduler.step(primary_metric)

    def skip(self, epochs: int) -> None:
        """Without a metric nothing changes."""


class StepSchedule:
    """Any scheduler that counts optimizer steps.

    It is stepped before the next step instead of after the last one: between two steps, and not after the last of all.
    Until then the optimizer has the rate of the step that it took.

    num_steps: of the whole training, beyond which the rate stays; None: not known.
    """

    def __init__(self, scheduler: lr_scheduler.LRScheduler, num_steps: int | None) -> None:
        self._scheduler, self._num_steps = scheduler, num_steps
        self._is_due = False
        self._has_stepped = False

    def step(self, primary_metric: float) -> None:
        """Epochs are not counted."""

    def skip(self, epochs: int) -> None:
        """Epochs are not counted."""

    def before_step(self) -> None:
        """Set the rate of the optimizer step that comes, unless the one before was not taken."""
        if not self._is_due:
            return
        self._is_due = False
        if self._num_steps is not None and self._scheduler.last_epoch + 1 >= self._num_steps:
            return
        if self._has_stepped:
            self._scheduler.step()
            return
        self._has_stepped = True
        with _in_any_order():  # is not free of cost
            self._scheduler.step()

    def after_step(self, *, is_taken: bool) -> None:
        """Count a step that was taken."""
        self._is_due = is_taken

    def replay_steps(self, number: int) -> None:
        """Go through optimizer steps that were taken already."""
        with _in_any_order():
            for _ in range(number):
                self.before_step()
                self.after_step(is_taken=True)
        self._has_stepped = False  # the optimizer has not, in this process

    def state_dict(self) -> dict[str, Any]:
        """That of the scheduler, and whether it is to be stepped before the next step."""
        return {"scheduler": _plain_state(self._scheduler), "is_due": self._is_due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        _load(self._scheduler, state["scheduler"])
        self._is_due = state["is_due"]


def _plain_state(scheduler: lr_scheduler.LRScheduler) -> dict[str, Any]:
    # In older versions of torch that of SWALR has a function, which the restricted unpickler refuses.
    return {key: value for key, value in scheduler.state_dict().items() if not callable(value)}


def _load(scheduler: lr_scheduler.LRScheduler, state: dict[str, Any]) -> None:
    made_for = _cycle_lengths(scheduler.state_dict())
    if made_for != (lengths := _cycle_lengths(state)):
        raise UserError(
            f"num_epochs: the run has a OneCycleLR of {lengths[0]} steps, and the job one of {made_for[0]}: a cycle "
            "cannot be made longer or shorter in the middle; leave num_epochs as it was, or train on in a new run that "
            "starts from these weights"
        )
    scheduler.load_state_dict(state)


def _cycle_lengths(state: dict[str, Any]) -> list[int]:
    """The lengths of all OneCycleLRs in the state of a scheduler."""
    inner = [length for one in state.get("_schedulers", []) for length in _cycle_lengths(one)]
    return [*([state["total_steps"]] if "total_steps" in state else []), *inner]


class ChainedSchedule:
    """One schedule for the first `num_epochs` steps between epochs, and from then on another, which has seen none of
    them."""

    def __init__(self, first: LRSchedule, num_epochs: int, second: LRSchedule) -> None:
        self._first, self._num_epochs, self._second = first, num_epochs, second
        self._epochs = 0

    def step(self, primary_metric: float) -> None:
        """Step the schedule that is active."""
        (self._first if self._epochs < self._num_epochs else self._second).step(primary_metric)
        self._epochs += 1

    def skip(self, epochs: int) -> None:
        """Step over epochs, each with the schedule that was active in it."""
        of_first = min(epochs, max(0, self._num_epochs - self._epochs))
        self._first.skip(of_first)
        self._second.skip(epochs - of_first)
        self._epochs += epochs

    @property
    def _in_epoch(self) -> LRSchedule:
        """The schedule whose rate the running epoch has."""
        return self._first if self._epochs <= self._num_epochs else self._second

    def before_step(self) -> None:
        """As the schedule does whose epoch it is."""
        self._in_epoch.before_step()

    def after_step(self, *, is_taken: bool) -> None:
        """As the schedule does whose epoch it is."""
        self._in_epoch.after_step(is_taken=is_taken)

    def replay_steps(self, number: int) -> None:
        """As the schedule does whose epoch it is."""
        self._in_epoch.replay_steps(number)

    def state_dict(self) -> dict[str, Any]:
        """The states of both, and the number of steps between epochs."""
        return {"steps": self._epochs, "first": self._first.state_dict(), "second": self._second.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._epochs = state["steps"]
        self._first.load_state_dict(state["first"])
        self._second.load_state_dict(state["second"])


def make_schedule(job: ResolvedJob, optimizer: Optimizer, steps_per_epoch: int | None = None) -> LRSchedule:
    """The job's learning rates for this optimizer: the warm-up if there is one, the scheduler, and SWA's rate.

    All objects are new: to resume, load the states of the optimizer and of the schedule into them. Raises UserError
    for what would fail in any of the job's epochs.

    steps_per_epoch: optimizer steps, for a job whose schedule counts them; None where they are not known.

    Warm-up: torch's SequentialLR. The scheduler's own epochs, or steps, count from the end of the warm-up.
    ReduceLROnPlateau, which SequentialLR does not take, finds the optimizer's own rate in the first epoch after the
    warm-up; the metric of that epoch is the first that it sees, since rates that rise say nothing about where learning
    stops.

    SWA: torch's SWALR takes the scheduler's place as in its documentation, which steps it after each epoch whose
    weights are averaged: epoch `swa.start`, the first of them, still has the scheduler's rates (and momentum, which
    stays). The rate first moves in the epoch after it and is `swa.swa_lr` from epoch start + anneal_epochs on; with 0
    from epoch start + 1. It counts epochs in a schedule by step too.
    """
    _rehearse(job, optimizer, steps_per_epoch)
    return assemble_schedule(job, optimizer, steps_per_epoch)


def stand_in_optimizer(job: ResolvedJob, optimizer: Optimizer) -> Optimizer:
    """An optimizer of the same groups over a few numbers, with the rates that the schedule begins with."""
    own = {"params", "initial_lr", "lr"}
    return construct_optimizer(
        job,
        [
            {
                **{key: value for key, value in group.items() if key not in own},
                "lr": group.get("initial_lr", group["lr"]),
                "params": [torch.zeros(2, 2, requires_grad=True, device="cpu")],
            }
            for group in optimizer.param_groups
        ],
    )


def _rehearse(job: ResolvedJob, optimizer: Optimizer, steps_per_epoch: int | None) -> None:
    """Go through all epochs, or the first steps of the warm-up and of what follows, with an optimizer of the same
    groups: some arguments fail only when a scheduler steps. Both are looked at, each by itself, before the whole."""
    length, mistakes = length_of(job, steps_per_epoch), Mistakes()
    most = job.num_epochs if job.schedule_by == "epoch" else REHEARSED_STEPS
    num_warmup = mistakes.of(lambda: _rehearse_warmup(job, optimizer, most)) or 0
    num_left = 1 if length is None else length - num_warmup - 1
    mistakes.of(lambda: _rehearse_main(job, optimizer, length, min(num_left, most)))
    mistakes.raise_found()
    if job.schedule_by == "step":
        return
    schedule = assemble_schedule(job, stand_in_optimizer(job, optimizer), steps_per_epoch)
    for epoch in range(1, job.num_epochs):
        with _as_mistake_of(job, "warmup_scheduler" if epoch < num_warmup else "scheduler"):
            schedule.step(0.0)


def _rehearse_warmup(job: ResolvedJob, optimizer: Optimizer, most: int) -> int:
    """How long the warm-up is; 0 for none."""
    if job.warmup_scheduler is None:
        return 0
    warmup, num_warmup = make_warmup(job, job.warmup_scheduler, stand_in_optimizer(job, optimizer))
    with _as_mistake_of(job, "warmup_scheduler"), _in_any_order():
        for _ in range(min(num_warmup, most) - 1):
            warmup.step()
    return num_warmup


def _rehearse_main(job: ResolvedJob, optimizer: Optimizer, length: int | None, number: int) -> None:
    main = make_main(job, stand_in_optimizer(job, optimizer), length)
    with _as_mistake_of(job, "scheduler"), _in_any_order():
        for _ in range(number):
            if isinstance(main, lr_scheduler.ReduceLROnPlateau):
                main.step(0.0)
            else:
                main.step()


@contextmanager
def _as_mistake_of(job: ResolvedJob, key: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UserError(f"{key}_args: {getattr(job, key)}: {first_line(error)}") from error


def assemble_schedule(job: ResolvedJob, optimizer: Optimizer, steps_per_epoch: int | None) -> LRSchedule:
    """The same as `make_schedule`, without looking at what may fail later."""
    schedule = _warmup_and_main(job, optimizer, length_of(job, steps_per_epoch))
    if job.swa is None or job.swa.swa_lr is None:
        return schedule
    return ChainedSchedule(schedule, job.swa.start - 1, EpochSchedule(make_swa(job.swa, job.swa.swa_lr, optimizer)))


def _warmup_and_main(job: ResolvedJob, optimizer: Optimizer, length: int | None) -> LRSchedule:
    def counted(scheduler: lr_scheduler.LRScheduler) -> LRSchedule:
        return EpochSchedule(scheduler) if job.schedule_by == "epoch" else StepSchedule(scheduler, length)

    if job.warmup_scheduler is None:
        main = make_main(job, optimizer, length)
        return PlateauSchedule(main) if isinstance(main, lr_scheduler.ReduceLROnPlateau) else counted(main)
    warmup, num_warmup = make_warmup(job, job.warmup_scheduler, optimizer)
    main = make_main(job, optimizer, length)
    if not isinstance(main, lr_scheduler.ReduceLROnPlateau):
        return counted(lr_scheduler.SequentialLR(optimizer, [warmup, main], [num_warmup]))
    own_rate = lr_scheduler.ConstantLR(optimizer, factor=1.0)
    to_own_rate = lr_scheduler.SequentialLR(optimizer, [warmup, own_rate], [num_warmup])
    return ChainedSchedule(EpochSchedule(to_own_rate), num_warmup, PlateauSchedule(main))
