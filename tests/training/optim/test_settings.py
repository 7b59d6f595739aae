"""What optimizer and learning rates a job comes to is said in a line each, by torch's own objects."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from accel_trainer.config import Job
from accel_trainer.training.check import JobChecker, optimization_lines
from accel_trainer.training.optim import settings
from accel_trainer.training.optim.lr_schedule import make_schedule
from accel_trainer.training.optim.optimizer import learning_rate, make_optimizer
from accel_trainer.training.optim.settings import Course

MakeJob = Callable[..., Job]
EPOCHS, PER_EPOCH = 20, 7
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 17, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [3, 40, 40], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 50}),
    ("LinearLR", {"start_factor": 0.1, "total_iters": 90}),
    ("ExponentialLR", {"gamma": 0.99}),
    ("PolynomialLR", {"total_iters": 115, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 60, "eta_min": 1e-4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 14, "T_mult": 2}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 11, "mode": "triangular2"}),
    ("OneCycleLR", {"max_lr": 0.1}),
]
WARMUP = {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"start_factor": 0.1, "total_iters": 38}}
SWA = {"swa": {"start": 12, "swa_lr": 0.02, "anneal_epochs": 4}}
# Of every kind that warms up: some rewrite the rate that the others begin with.
WARMUPS: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 2, "gamma": 1.5, "total_iters": 5}),
    ("MultiStepLR", {"milestones": [2, 4], "gamma": 2.0, "total_iters": 6}),
    ("ConstantLR", {"factor": 0.5, "total_iters": 6}),
    ("LinearLR", {"start_factor": 0.1, "total_iters": 8}),
    ("ExponentialLR", {"gamma": 1.2, "total_iters": 4}),
    ("PolynomialLR", {"power": 2.0, "total_iters": 5}),
    ("CosineAnnealingLR", {"T_max": 3, "eta_min": 1e-3, "total_iters": 9}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "total_iters": 5}),
    ("CyclicLR", {"base_lr": 0.001, "max_lr": 0.07, "step_size_up": 3, "total_iters": 5}),
    ("OneCycleLR", {"max_lr": 0.2, "total_iters": 7}),
]


def small_model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False))


def stepped_rates(job: Job, per_epoch: int = PER_EPOCH) -> list[float]:
    """Of each step, by a schedule that goes through all of them."""
    optimizer = make_optimizer(job, small_model())
    schedule, rates = make_schedule(job, optimizer, per_epoch), []
    optimizer.step()
    for number in range(job.num_epochs * per_epoch):
        if number and number % per_epoch == 0:
            schedule.step(0.0)
        schedule.before_step()
        rates.append(learning_rate(optimizer))
        schedule.after_step(is_taken=True)
    return rates


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler")
@pytest.mark.parametrize("more", [{}, WARMUP, SWA, {**WARMUP, **SWA, "layer_decay": 0.5}], ids=str)
@pytest.mark.parametrize(("name", "args"), SCHEDULES)
def test_the_rates_that_are_said_by_step_are_those_of_all_steps(
    make_job: MakeJob, name: str, args: dict[str, Any], more: dict[str, Any]
) -> None:
    args = {**args, "eta_min": 0} if "layer_decay" in more and "eta_min" in args else args
    job = make_job(num_epochs=EPOCHS, schedule_by="step", scheduler=name, scheduler_args=args, **more)
    optimizer = make_optimizer(job, small_model())
    make_schedule(job, optimizer, PER_EPOCH)
    rates = stepped_rates(job)
    planned = Course(job, optimizer, PER_EPOCH).planned_rates()
    assert [rate.epochs_done for rate in planned] == [0, 5, 10, 15, 19]
    expected = [rates[epoch * PER_EPOCH] for epoch in (0, 5, 10, 15)] + [rates[-1]]
    assert [rate.rate for rate in planned] == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler")
@pytest.mark.parametrize("by", ["epoch", "step"])
@pytest.mark.parametrize(("warmup", "warmup_args"), WARMUPS)
def test_after_every_warm_up_the_sampled_rates_are_those_that_are_trained(
    make_job: MakeJob, warmup: str, warmup_args: dict[str, Any], by: str
) -> None:
    """The steps, or epochs, are so few that each is among the samples."""
    warmed = {"warmup_scheduler": warmup, "warmup_scheduler_args": warmup_args, "schedule_by": by}
    wrong = {}
    for name, args in SCHEDULES:
        job = make_job(num_epochs=24 if by == "epoch" else 6, scheduler=name, scheduler_args=args, **warmed)
        optimizer = make_optimizer(job, small_model())
        trained = stepped_rates(job, per_epoch=4)[:: 4 if by == "epoch" else 1]
        course = Course(job, optimizer, 4)
        course.planned_rates()  # of the same walk, as far as the end
        said = course.sampled_rates()
        if said != pytest.approx(trained, rel=1e-9, abs=1e-12):
            wrong[name] = said
    assert wrong == {}


def test_the_rates_that_are_said_by_epoch_are_torchs(make_job: MakeJob) -> None:
    job = make_job(num_epochs=40, scheduler="CosineAnnealingLR", scheduler_args={"T_max": 40}, optimizer_args={"lr": 1})
    optimizer = torch.optim.SGD(small_model().parameters(), lr=1.0)
    scheduler, rates = lr_scheduler.CosineAnnealingLR(optimizer, T_max=40), []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    said = optimization_lines(job)[1]
    shown = [f"{rates[epoch]:.4g}" for epoch in (0, 10, 20, 30, 39)]
    start, quarter, half, three_quarters, last = shown
    assert said == (
        f"CosineAnnealingLR by epoch: lr {start} at the start, {quarter} after 10, {half} after 20, "
        f"{three_quarters} after 30, {last} in the last epoch"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"scheduler": "ReduceLROnPlateau"},
            "ReduceLROnPlateau by epoch: lr 0.05 at the start, then lowered when acc1 no longer improves",
        ),
        (
            {"scheduler": "ReduceLROnPlateau", "num_epochs": 8, "warmup_scheduler": "LinearLR"},
            "ReduceLROnPlateau by epoch after 5 epochs of LinearLR: lr 0.01667 at the start, 0.03 after 2, "
            "0.04333 after 4, then lowered when acc1",
        ),
        (
            {"scheduler": "OneCycleLR", "scheduler_args": {"max_lr": [0.1, 0.2]}, "decay_norm_and_bias": False},
            "OneCycleLR by epoch: its rates are those of each parameter group",
        ),
        (
            {"num_epochs": 1},
            "StepLR by epoch: lr 0.05 at the start; step_size: 30 epochs are not reached in 1: the learning rate never",
        ),
        ({"optimizer_args": {"lr": "LRfinder"}}, "StepLR by epoch: its rates follow from lr, which is found before"),
        (
            {"optimizer_args": {"lr": "batch_linear"}, "batch_size": 64},
            "StepLR by epoch: lr 2 at the start, 2 after 25",
        ),
        (
            {"dataset": "nowhere", "schedule_by": "step", "scheduler": "OneCycleLR", "scheduler_args": {"max_lr": 1}},
            "OneCycleLR by step: its rates follow from the number of steps in an epoch, which is not known yet",
        ),
        (
            {"batch_size": "auto", "schedule_by": "step", "scheduler": "ExponentialLR", "scheduler_args": {"gamma": 1}},
            "ExponentialLR by step: its rates follow from the number of steps",
        ),
        (
            {"swa": {"start": 50, "swa_lr": 0.003}},
            "StepLR by epoch, SWA to lr 0.003 after epoch 50: lr 0.05 at the start",
        ),
    ],
)
def test_a_schedule_is_said_as_far_as_it_is_known(make_job: MakeJob, given: dict[str, Any], said: str) -> None:
    assert optimization_lines(make_job(**given))[1].startswith(said)


def test_of_a_scheduler_to_which_the_warm_up_leaves_no_epoch_nothing_is_said(make_job: MakeJob) -> None:
    (line,) = optimization_lines(make_job(num_epochs=3, warmup_scheduler="LinearLR"))[1:]
    assert line.startswith("StepLR by epoch after 5 epochs of LinearLR: lr 0.01667 at the start")
    assert "step_size" not in line


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({}, ["SGD: lr 0.05, momentum 0.9,", "weight_decay 0.0001", "nesterov false", "fused auto"]),
        ({"optimizer_args": {"lr": 0.1}}, ["SGD: lr 0.1, momentum 0.9,", "weight_decay 0.0001"]),
        (
            {"optimizer": "AdamW", "optimizer_args": {"lr": 0.003, "betas": [0.8, 0.99], "foreach": False}},
            ["AdamW: lr 0.003, betas [0.8, 0.99], eps 1e-08, weight_decay 0.01", "foreach false"],
        ),
        ({"optimizer": "Adafactor", "optimizer_args": {}}, ["Adafactor: lr 0.01", "eps [none, 0.001]"]),
        ({"optimizer_args": {"lr": "LRfinder"}}, ["SGD: lr LRfinder, momentum 0.9"]),
        ({"layer_decay": 0.75, "decay_norm_and_bias": False}, ["each layer has 0.75 of", "no weight decay of biases"]),
        ({"clip_grad_norm": 1}, ["gradients clipped to 1"]),
    ],
)
def test_an_optimizer_is_said_with_all_its_settings(make_job: MakeJob, given: dict[str, Any], parts: list[str]) -> None:
    said = optimization_lines(make_job(**given))[0]
    assert [part for part in parts if part not in said] == []


def test_a_checked_job_says_its_optimizer_and_the_rates_of_its_steps(make_job: MakeJob) -> None:
    given = {"schedule_by": "step", "scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.99}}
    job = make_job(architecture="small_cnn", image_size=8, batch_size=64, num_epochs=2, **given)
    summary = JobChecker()(job, world_size=1)
    assert summary.optimizer == optimization_lines(job)[0]
    steps = summary.steps_per_epoch
    assert steps is not None
    last = 0.05 * 0.99 ** (2 * steps - 1)
    assert summary.schedule == f"ExponentialLR by step: lr 0.05 at the start, {last:.4g} in the last epoch"
    assert optimization_lines(job)[1] == summary.schedule


@pytest.mark.parametrize("by", ["epoch", "step"])
def test_a_checked_jobs_schedule_is_walked_through_once(
    make_job: MakeJob, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the line of its rates, and for what doubts them: a long schedule takes most of a second."""
    name, walks = "_rates_of_epochs" if by == "epoch" else "_StepRates", []
    walk = getattr(settings, name)
    monkeypatch.setattr(settings, name, lambda *given: walks.append(name) or walk(*given))
    given = {"schedule_by": by, "scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.99}}
    job = make_job(architecture="small_cnn", image_size=8, batch_size=64, num_epochs=8, **given)
    summary = JobChecker()(job, world_size=1)
    assert walks == [name]
    assert summary.rates
