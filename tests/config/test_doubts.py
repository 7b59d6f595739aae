"""What can hardly be meant is said, once, with a cure; what many mean is not."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from doubts_list import with_list
from helpers import REPOSITORY
from published_jobs import published_jobs
from torch.optim import lr_scheduler

from accel_trainer import Job, migrate
from accel_trainer.config import read_job
from accel_trainer.config.doubts import DOUBTS, doubts
from accel_trainer.config.known import Known
from accel_trainer.config.schedule_doubts import COURSES, DEFAULT_WARMUPS
from accel_trainer.training.check import learning_rates
from accel_trainer.training.optim.schedulers import SCHEDULERS

KNOWN = Known(num_classes=10, train_images=1280, steps_per_epoch=20, cycles=1)
WARMUP = {"warmup_scheduler": "LinearLR"}
UNCHANGED_VIEWS = {"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "none"}


def said(known: Known = KNOWN, **given: Any) -> list[str]:
    job = Job(**{"architecture": "small_cnn", "batch_size": 64, "num_epochs": 8, **given})
    return [str(doubt) for doubt in doubts(job, with_rates(job, known))]


def with_rates(job: Job, known: Known) -> Known:
    return replace(known, rates=learning_rates(job, known.steps_per_epoch))


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"scheduler": "StepLR", "scheduler_args": {"step_size": 30}}, "scheduler_args.step_size"),
        ({"scheduler": "StepLR", "scheduler_args": {"step_size": 8}}, "scheduler_args.step_size"),
        ({"scheduler": "MultiStepLR", "scheduler_args": {"milestones": [3, 60, 80]}}, "scheduler_args.milestones"),
        ({"scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 100}}, "scheduler_args.T_max"),
        ({"scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 4}}, "scheduler_args.T_max"),
        ({"scheduler": "ReduceLROnPlateau", "scheduler_args": {}}, "scheduler_args.patience"),
        ({"scheduler": "MultiStepLR", "scheduler_args": {"milestones": [-3, 6]}}, "scheduler_args.milestones"),
        ({"scheduler": "MultiStepLR", "scheduler_args": {"milestones": [6, 90.0]}}, "scheduler_args.milestones"),
        ({"scheduler": "MultiStepLR", "scheduler_args": {"milestones": []}}, "scheduler_args"),
        ({"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.01}}, "scheduler_args"),
        ({"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.1}, "num_epochs": 90}, "scheduler_args"),
        ({"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 1}}, "scheduler_args"),
        ({"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.1}, "schedule_by": "step"}, "scheduler_args"),
        ({"scheduler": "StepLR", "scheduler_args": {"step_size": 5}, "schedule_by": "step"}, "scheduler_args"),
        ({"scheduler": "PolynomialLR", "num_epochs": 90}, "scheduler_args"),
        ({"scheduler": "PolynomialLR", "scheduler_args": {"total_iters": 60}, "num_epochs": 90}, "scheduler_args"),
        ({"scheduler": "LinearLR", "scheduler_args": {"end_factor": 0}, "num_epochs": 30}, "scheduler_args"),
        ({"optimizer_args": {"lr": 0}}, "optimizer_args.lr"),
        ({"scheduler": "PolynomialLR", "scheduler_args": {"total_iters": 80}}, "scheduler_args.total_iters"),
        ({"scheduler": "LinearLR", "scheduler_args": {"total_iters": 80}}, "scheduler_args.total_iters"),
        ({"scheduler": "CyclicLR", "scheduler_args": {"base_lr": 0.01, "max_lr": 1}}, "scheduler_args.step_size_up"),
        ({"scheduler": "CosineAnnealingWarmRestarts", "scheduler_args": {"T_0": 80}}, "scheduler_args.T_0"),
        ({**WARMUP, "num_epochs": 5}, "warmup_scheduler_args.total_iters"),
        ({**WARMUP, "num_epochs": 3}, "warmup_scheduler_args.total_iters"),
        ({**WARMUP, "scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 8}}, "scheduler_args.T_max"),
        (
            {**WARMUP, "num_epochs": 90, "scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 90}},
            "scheduler_args.T_max",
        ),
        (
            {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"total_iters": 8}, "scheduler": "ConstantLR"},
            "warmup_scheduler_args.total_iters",
        ),
        ({"loss_cycle": "uniform"}, "loss_cycle"),
        ({"save_interval": 9}, "save_interval"),
        ({"knn_interval": 9}, "knn_interval"),
        ({"swa": {"start": 8}}, "swa.start"),
        ({"swa": {"start": 4, "swa_lr": 0.1}}, "swa.anneal_epochs"),
        ({"ema": 0.9999}, "ema"),
        ({"cutmix": True, "criterion_args": {"label_smoothing": 0.5}}, "criterion_args.label_smoothing"),
        ({"optimizer": "Adam", "optimizer_args": {"lr": 0.1}}, "optimizer_args.lr"),
        ({"batch_size": 256, "optimizer_args": {"lr": "batch_linear"}}, "optimizer_args.lr"),
        ({"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "default"}, "transform_type"),
        ({"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "none"}, "transform_type"),
        (
            {"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "contrastive", "view_dependence": True},
            "view_dependence",
        ),
        ({**UNCHANGED_VIEWS, "randomerase": False}, "transform_type"),
        ({"Occlusion": {"form": "a", "probability": 0}}, "Occlusion.probability"),
        ({"Occlusion": {"form": "a", "visibility": 1.0}}, "Occlusion.visibility"),
        ({"Blur": {"sigmas": 0}}, "Blur.sigmas"),
        ({"Noise": {"ssnrs": [1.0]}}, "Noise.ssnrs"),
        ({"Noise": {"ssnrs": 0.5, "probs": [0]}}, "Noise.probs"),
        ({"Noise": {"ssnrs": [0.5, 1], "probs": [0, 1]}}, "Noise.probs"),
        ({"Blur": {"sigmas": [1, 2], "probs": 0}}, "Blur.probs"),
        ({"Blur": {"sigmas": [0, 2], "probs": [0.5, 0]}}, "Blur.probs"),
        ({"Occlusion": {"form": "a", "visibility": [0.5, 1.0], "vis_probs": [0, 1]}}, "Occlusion.vis_probs"),
        ({"Occlusion": {"form": "a", "visibility": [1.0, 1.0], "vis_probs": [0, 1]}}, "Occlusion.visibility"),
    ],
)
def test_what_can_hardly_be_meant_is_said_with_its_parameter(given: dict[str, Any], key: str) -> None:
    (line,) = said(**given)
    assert line.startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("known", "given", "key"),
    [
        (Known(num_classes=5), {"primary_metric": "acc5"}, "primary_metric"),
        (Known(train_images=1000, steps_per_epoch=1), {"batch_size": 600}, "batch_size"),
        (
            Known(on_cpu=True),
            {"optimizer": "Adam", "optimizer_args": {"lr": 0.001, "capturable": True}},
            "optimizer_args.capturable",
        ),
        (Known(), {"optimizer_args": {"maximize": True}}, "optimizer_args.maximize"),
        (Known(without_order=["the gradient of AdaptiveAvgPool2d"]), {"deterministic": True}, "deterministic"),
    ],
)
def test_what_the_images_show_is_said_too(known: Known, given: dict[str, Any], key: str) -> None:
    (line,) = said(known, **given)
    assert line.startswith(f"{key}: ")


@pytest.mark.parametrize(
    "given",
    [
        {},  # eight epochs without a word of a schedule
        {"num_epochs": 90, "scheduler": "StepLR", "scheduler_args": {"step_size": 30}},
        {"scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 8}},
        {"scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 7}},
        {"scheduler": "ConstantLR", "scheduler_args": {"factor": 1.0}},
        {"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.97}, "num_epochs": 350},
        {"scheduler": "PolynomialLR", "scheduler_args": {"total_iters": 8}},
        {"scheduler": "MultiStepLR", "scheduler_args": {"milestones": [2, 3, 4, 5]}},
        {"scheduler": "OneCycleLR", "scheduler_args": {"max_lr": 0.1}},
        {"scheduler": "OneCycleLR", "scheduler_args": {"max_lr": 0.1}, "schedule_by": "step"},
        {"scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 160}, "schedule_by": "step"},
        {"scheduler": "CyclicLR", "scheduler_args": {"base_lr": 0.01, "max_lr": 1, "step_size_up": 2}},
        {**WARMUP, "num_epochs": 30},
        {"loss_cycle": -1},
        {"primary_metric": "acc5"},
        {"swa": {"start": 6}},
        {"ema": 0.95},
        {"cutmix": True},
        {"optimizer": "Adam", "optimizer_args": {"lr": 0.001}},
        {"optimizer_args": {"lr": "batch_nonlinear"}},
        {"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "contrastive"},
        {"Occlusion": {"form": "a", "visibility": [0.5, 1.0]}},
        {"Blur": {"sigmas": [2, 0]}},
        {"Blur": {"sigmas": [2, 0], "probs": [0.1, 0]}},
        {"Noise": {"ssnrs": [0.5, 1], "probs": [0.1, 0]}},
        {"Occlusion": {"form": "a", "visibility": [0.5, 1.0], "vis_probs": [0.1, 1]}},
        {**UNCHANGED_VIEWS, "Noise": {"ssnrs": 0.5}},
    ],
)
def test_what_many_mean_is_not_doubted(given: dict[str, Any]) -> None:
    assert said(**given) == []


def test_views_that_differ_by_noise_that_never_comes_are_equal() -> None:
    keys = [line.partition(":")[0] for line in said(**UNCHANGED_VIEWS, Noise={"ssnrs": 0.5, "probs": 0})]
    assert keys == ["transform_type", "Noise.probs"]


def test_a_warm_up_shortens_what_the_main_schedule_has() -> None:
    """A published vision transformer warms up for 30 of 300 epochs, and its cosine takes the 270 that are left."""
    warmed = {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"total_iters": 3}}
    cosine = {"scheduler": "CosineAnnealingLR", "num_epochs": 10}
    assert said(**warmed, **cosine, scheduler_args={"T_max": 7}) == []
    (line,) = said(**warmed, **cosine, scheduler_args={"T_max": 10})
    assert "10, but there are 7 epochs" in line
    assert "for the whole course use 7, what the warm-up leaves" in line


@pytest.mark.parametrize("name", published_jobs())
def test_nothing_in_a_published_job_is_doubted(name: str) -> None:
    job = Job(**migrate(published_jobs()[name]).job, name=name)
    imagenet = Known(num_classes=1000, train_images=1_281_167, steps_per_epoch=1_281_167 // 256, cycles=1)
    assert doubts(job, with_rates(job, imagenet)) == []


def test_nothing_in_an_example_is_doubted() -> None:
    for path in (REPOSITORY / "training_queue/examples").glob("*.json"):
        job = read_job(path)
        assert doubts(job, with_rates(job, Known(num_classes=10, train_images=1347, steps_per_epoch=10))) == [], path


def test_without_knowledge_of_images_and_model_nothing_is_guessed() -> None:
    job = Job(architecture="small_cnn", primary_metric="acc5", loss_cycle="uniform", ema=0.9999)
    assert all(not list(doubt(job, Known())) for doubt in DOUBTS)


def test_what_is_next_to_nothing_is_said_with_how_much_of_the_training_it_is() -> None:
    (line,) = said(scheduler="PolynomialLR", num_epochs=90)
    assert line == (
        "scheduler_args: in 94% of the training the learning rate is below a millionth of its highest, 0.05: nothing "
        "is learned there; total_iters is 5 where it is not given"
    )


def test_a_warm_up_as_long_as_torchs_default_is_known() -> None:
    """And the lengths of the schedules that have one by default."""
    defaults = {
        name: parameters["total_iters"].default
        for name, kind in SCHEDULERS.items()
        if "total_iters" in (parameters := inspect.signature(kind).parameters)
    }
    assert defaults == DEFAULT_WARMUPS
    for name, course in COURSES.items():
        default = inspect.signature(SCHEDULERS[name]).parameters[course.argument].default
        assert course.default == (None if default is inspect.Parameter.empty else default), name


@pytest.mark.parametrize("warmup", [0, 2, 6])
@pytest.mark.parametrize("takes", [3, 6, 16, 18, 22, 24, 40])
def test_a_course_is_doubted_where_torchs_rates_do_not_come_to_its_end(warmup: int, takes: int) -> None:
    """A training of 24 epochs; PolynomialLR's rate of 0 is the sign of its end."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    main = lr_scheduler.PolynomialLR(optimizer, total_iters=takes)
    if warmup:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        first = lr_scheduler.LinearLR(optimizer, total_iters=warmup)
        main = lr_scheduler.PolynomialLR(optimizer, total_iters=takes)
        main = lr_scheduler.SequentialLR(optimizer, [first, main], [warmup])
    rates = []
    for _ in range(24):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        main.step()
    warmed = {**WARMUP, "warmup_scheduler_args": {"total_iters": warmup}} if warmup else {}
    given = {"scheduler": "PolynomialLR", "scheduler_args": {"total_iters": takes}, "optimizer_args": {"lr": 1}}
    lines = said(**given, **warmed, num_epochs=24)
    never_down = rates[-1] > 0.2 + 0.8 / (24 - warmup) + 1e-9  # it takes a quarter more than there is
    early = sum(rate < 1e-6 for rate in rates) >= 0.2 * 24
    assert any("does not come down" in line for line in lines) == (never_down or (warmup > 0 and takes == 24))
    assert any("nothing is learned" in line for line in lines) == early


def test_the_page_names_every_doubt() -> None:
    page = (REPOSITORY / "docs/training.md").read_text()
    assert with_list(page) == page, "run `make docs`"
    assert len({doubt.__doc__ for doubt in DOUBTS}) == len(DOUBTS)
