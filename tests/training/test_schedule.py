"""Learning rates over epochs are torch's own, and go on after a restart as if nothing had happened."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from accel_trainer.config import Job
from accel_trainer.errors import UserError
from accel_trainer.runs import RunFolder
from accel_trainer.training.checkpoint import Progress, StateStore, TrainState
from accel_trainer.training.schedule import OPTIMIZERS, SCHEDULERS, learning_rate, make_optimizer, make_schedule

EPOCHS = 20
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 7, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [3, 10, 10], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 5}),
    ("LinearLR", {"start_factor": 0.1, "total_iters": 6}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("PolynomialLR", {"total_iters": 15, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": EPOCHS, "eta_min": 1e-4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 4, "T_mult": 2}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": EPOCHS}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": EPOCHS + 5, "anneal_strategy": "linear"}),
    ("ReduceLROnPlateau", {"patience": 2, "factor": 0.5}),
]
schedules = pytest.mark.parametrize(("name", "args"), SCHEDULES)
MakeJob = Callable[..., Job]


def metric(epoch: int) -> float:
    """An accuracy that improves, stays, then gets worse."""
    return [50.0, 60, 70, 70, 70, 70, 70, 60, 60, 71][epoch % 10]


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(4, 3, generator=generator)) for _ in range(2)]


def train_step(optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def through_the_disk(run: RunFolder, trainer: dict[str, Any]) -> dict[str, Any]:
    """What the restricted unpickler gives back of a state."""
    StateStore(run).save(TrainState(Progress(), {"w": torch.zeros(1)}, trainer, 1))
    state = StateStore(run).newest()
    assert state is not None
    return dict(state.trainer)


def test_every_scheduler_is_tried_here() -> None:
    assert {name for name, _ in SCHEDULES} == set(SCHEDULERS)


@schedules
def test_the_learning_rate_is_that_of_torch_stepped_once_per_epoch(
    make_job: MakeJob, name: str, args: dict[str, Any]
) -> None:
    job = make_job(num_epochs=EPOCHS, scheduler=name, scheduler_args=args)
    ours, theirs = (torch.optim.SGD(parameters(), lr=0.05, momentum=0.9) for _ in range(2))
    schedule = make_schedule(job, ours)
    is_plateau = name == "ReduceLROnPlateau"
    scheduler = getattr(lr_scheduler, name)(theirs, **args, **({"mode": "max"} if is_plateau else {}))
    rates = []
    for epoch in range(EPOCHS):
        rates.append(learning_rate(ours))
        assert rates[-1] == theirs.param_groups[0]["lr"]
        train_step(ours, epoch)
        train_step(theirs, epoch)
        if epoch < EPOCHS - 1:
            schedule.step(metric(epoch))
            scheduler.step(*([metric(epoch)] if is_plateau else []))
    assert len(set(rates)) > 1


@schedules
def test_a_restarted_schedule_goes_on_where_it_was(
    make_job: MakeJob, run: RunFolder, name: str, args: dict[str, Any]
) -> None:
    job = make_job(num_epochs=EPOCHS, scheduler=name, scheduler_args=args)

    def rates(optimizer: torch.optim.Optimizer, schedule: Any, epochs: range) -> list[float]:
        seen = []
        for epoch in epochs:
            train_step(optimizer, epoch)
            schedule.step(metric(epoch))
            seen.append(learning_rate(optimizer))
        return seen

    optimizer = make_optimizer(job, parameters())
    schedule = make_schedule(job, optimizer)
    rates(optimizer, schedule, range(7))
    saved = through_the_disk(run, {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})
    restarted = make_optimizer(job, parameters())
    restarted_schedule = make_schedule(job, restarted)
    restarted.load_state_dict(saved["optimizer"])
    restarted_schedule.load_state_dict(saved["schedule"])
    rest = range(7, EPOCHS - 1)
    assert rates(restarted, restarted_schedule, rest) == rates(optimizer, schedule, rest)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_restarted_optimizer_goes_on_to_the_bit(make_job: MakeJob, run: RunFolder, name: str) -> None:
    job = make_job(optimizer=name, optimizer_args={"lr": 0.01, **({"momentum": 0.9} if name == "SGD" else {})})
    ours, restarted = parameters(), parameters()
    optimizer, again = make_optimizer(job, ours), make_optimizer(job, restarted)
    for step in range(3):
        train_step(optimizer, step)
    saved = through_the_disk(run, {"optimizer": optimizer.state_dict()})
    with torch.no_grad():
        for parameter, value in zip(restarted, ours, strict=True):
            parameter.copy_(value)
    again.load_state_dict(saved["optimizer"])
    for step in range(3, 6):
        train_step(optimizer, step)
        train_step(again, step)
    for parameter, other in zip(ours, restarted, strict=True):
        assert torch.equal(parameter, other)


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"primary_metric": "acc1"}, "max"),
        ({"primary_metric": "acc5"}, "max"),
        ({"primary_metric": "CrossEntropyLoss"}, "min"),
        ({"primary_metric": "acc1", "scheduler_args": {"mode": "min"}}, "min"),
    ],
)
def test_the_plateau_looks_in_the_direction_of_the_primary_metric(
    make_job: MakeJob, given: dict[str, Any], mode: str
) -> None:
    job = make_job(scheduler="ReduceLROnPlateau", **{"scheduler_args": {}, **given})
    schedule = make_schedule(job, make_optimizer(job, parameters()))
    assert schedule.state_dict()["mode"] == mode


def test_a_plateau_lowers_the_rate_only_when_the_metric_stops_improving(make_job: MakeJob) -> None:
    job = make_job(scheduler="ReduceLROnPlateau", scheduler_args={"patience": 0, "factor": 0.5})
    optimizer = make_optimizer(job, parameters())
    schedule = make_schedule(job, optimizer)
    rates = []
    for value in (10.0, 20.0, 30.0, 30.0, 29.0):
        schedule.step(value)
        rates.append(learning_rate(optimizer) / 0.05)
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.25])


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        make_schedule(job, make_optimizer(job, parameters()))
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimizer": "Adamw"}, "optimizer: 'Adamw' cannot be used here; did you mean 'AdamW'"),
        ({"optimizer": "LBFGS"}, "optimizer: 'LBFGS' cannot be used here"),
        ({"optimizer": "SparseAdam"}, "optimizer: 'SparseAdam' cannot be used here"),
        ({"optimizer": "Optimizer"}, "optimizer: 'Optimizer' cannot be used here"),
        (
            {"optimizer_args": {"lr": 0.1, "momentun": 0.9}},
            "optimizer_args.momentun: SGD takes no such argument; did you",
        ),
        ({"optimizer_args": {"params": []}}, "optimizer_args.params: SGD takes no such argument"),
        ({"optimizer_args": {"lr": -1}}, "optimizer_args: SGD: Invalid learning rate: -1"),
        ({"optimizer_args": {"lr": 0.1, "momentum": "x"}}, "optimizer_args: SGD: "),
        ({"optimizer": "AdamW", "optimizer_args": {"betas": [0.9]}}, "optimizer_args: AdamW: "),
        ({"optimizer": "AdamW", "optimizer_args": {"betas": {}}}, "optimizer_args: AdamW: "),
        ({"scheduler": "StepsLR"}, "scheduler: 'StepsLR' cannot be used here; did you mean 'StepLR'"),
        ({"scheduler": "LambdaLR"}, "scheduler: 'LambdaLR' cannot be used here"),
        ({"scheduler": "MultiplicativeLR"}, "scheduler: 'MultiplicativeLR' cannot be used here"),
        ({"scheduler": "SequentialLR"}, "scheduler: 'SequentialLR' cannot be used here"),
        ({"scheduler": "LRScheduler"}, "scheduler: 'LRScheduler' cannot be used here"),
        ({"scheduler": "CosineAnnealingLR"}, "scheduler_args: CosineAnnealingLR needs T_max"),
        (
            {"scheduler_args": {"step": 3}},
            "scheduler_args.step: StepLR takes no such argument; did you mean 'step_size'",
        ),
        ({"scheduler": "ReduceLROnPlateau", "scheduler_args": {"factor": 2}}, "scheduler_args: ReduceLROnPlateau: "),
        ({"scheduler": "MultiStepLR", "scheduler_args": {"milestones": 30}}, "scheduler_args: MultiStepLR: "),
        (
            {"scheduler": "CyclicLR", "scheduler_args": {"base_lr": 0.1, "max_lr": 1, "step_size_up": 0}},
            "scheduler_args: CyclicLR: ",
        ),
        ({"scheduler": "StepLR", "scheduler_args": {"step_size": 1, "last_epoch": 5}}, "scheduler_args: StepLR: "),
    ],
)
def test_a_wrong_name_or_argument_is_told(make_job: MakeJob, given: dict[str, Any], said: str) -> None:
    assert refusal(make_job(**given)).startswith(said)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("StepLR", {"step_size": 0}),
        ("StepLR", {"step_size": "7"}),
        ("ExponentialLR", {"gamma": "0.9"}),
        ("CosineAnnealingLR", {"T_max": 0}),
        ("ReduceLROnPlateau", {"patience": "2"}),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": EPOCHS - 2}),
    ],
)
def test_a_schedule_that_would_fail_after_some_epochs_is_told_before_the_first(
    make_job: MakeJob, name: str, args: dict[str, Any]
) -> None:
    assert refusal(make_job(num_epochs=EPOCHS, scheduler=name, scheduler_args=args)).startswith("scheduler_args: ")


def test_epochs_without_a_metric_are_skipped_and_do_not_count_for_a_plateau(make_job: MakeJob) -> None:
    job = make_job(num_epochs=60, scheduler="ReduceLROnPlateau", scheduler_args={"patience": 3})
    optimizer = make_optimizer(job, parameters())
    make_schedule(job, optimizer).skip(50)
    assert learning_rate(optimizer) == 0.05

    job = make_job(num_epochs=60, scheduler="StepLR", scheduler_args={"step_size": 20, "gamma": 0.1})
    optimizer = make_optimizer(job, parameters())
    train_step(optimizer, 0)
    make_schedule(job, optimizer).skip(50)
    assert learning_rate(optimizer) == pytest.approx(0.05 * 0.1**2)
