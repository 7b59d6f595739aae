"""Learning rates over epochs: any scheduler of torch by name, stepped once after every epoch."""

from typing import Any, Protocol

import torch
from torch.optim import Optimizer, lr_scheduler

from accel_trainer.config import Job
from accel_trainer.errors import UserError, first_line
from accel_trainer.training.construct import construct, subclasses

# These want functions or other schedulers, which a job file cannot give.
_NOT_FROM_JSON = frozenset({"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"})
SCHEDULERS = subclasses(lr_scheduler, lr_scheduler.LRScheduler, without=_NOT_FROM_JSON)
# LBFGS wants a closure, SparseAdam sparse gradients.
OPTIMIZERS = subclasses(torch.optim, Optimizer, without=frozenset({"LBFGS", "SparseAdam"}))


class Schedule(Protocol):
    def step(self, primary_metric: float) -> None:
        """Another epoch begins; `primary_metric` is that of the last one's validation."""
        ...

    def skip(self, epochs: int) -> None:
        """Epochs are over of which no metric is known."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ByEpoch:
    """Any scheduler that counts epochs."""

    def __init__(self, scheduler: lr_scheduler.LRScheduler) -> None:
        self._scheduler = scheduler

    def step(self, primary_metric: float) -> None:
        self._scheduler.step()

    def skip(self, epochs: int) -> None:
        for _ in range(epochs):
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self._scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scheduler.load_state_dict(state)


class ByMetric(ByEpoch):
    """ReduceLROnPlateau: it looks at how the validation went."""

    _scheduler: lr_scheduler.ReduceLROnPlateau

    def step(self, primary_metric: float) -> None:
        self._scheduler.step(primary_metric)

    def skip(self, epochs: int) -> None:
        """It has seen nothing of them."""


def make_optimizer(job: Job, parameters: Any) -> Optimizer:
    """The job's optimizer over these parameters. Raises UserError."""
    return construct("optimizer", OPTIMIZERS, job.optimizer, job.optimizer_args, parameters)


def make_schedule(job: Job, optimizer: Optimizer) -> Schedule:
    """The job's scheduler for this optimizer. Raises UserError for what would fail in any of the job's epochs."""
    _rehearse(job)
    return _make_schedule(job, optimizer)


def _rehearse(job: Job) -> None:
    """Go through all epochs with an optimizer of its own: some arguments fail only when a scheduler steps."""
    optimizer = make_optimizer(job, [torch.zeros(2, 2, requires_grad=True, device="cpu")])
    schedule = _make_schedule(job, optimizer)
    optimizer.step()
    try:
        for _ in range(job.num_epochs - 1):
            schedule.step(0.0)
    except Exception as error:
        raise UserError(f"scheduler_args: {job.scheduler}: {first_line(error)}") from error


def _make_schedule(job: Job, optimizer: Optimizer) -> Schedule:
    args = dict(job.scheduler_args)
    if job.scheduler == "ReduceLROnPlateau":
        args.setdefault("mode", "max" if job.higher_is_better else "min")
    scheduler = construct("scheduler", SCHEDULERS, job.scheduler, args, optimizer)
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return ByMetric(scheduler)
    return ByEpoch(scheduler)


def learning_rate(optimizer: Optimizer) -> float:
    """That of the first parameter group."""
    return float(optimizer.param_groups[0]["lr"])
