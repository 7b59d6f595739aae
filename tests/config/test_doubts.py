"""What can hardly be meant is said, once, with a cure; what many mean is not."""

from typing import Any

import pytest
from helpers import REPOSITORY
from published_jobs import published_jobs

from accel_trainer import Job, migrate
from accel_trainer.config import read_job
from accel_trainer.config.doubts import DOUBTS, Known, doubts

KNOWN = Known(num_classes=10, train_images=1280, steps_per_epoch=20, cycles=1)


def said(known: Known = KNOWN, **given: Any) -> list[str]:
    job = Job(**{"architecture": "small_cnn", "batch_size": 64, "num_epochs": 8, **given})
    return [str(doubt) for doubt in doubts(job, known)]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"scheduler": "StepLR", "scheduler_args": {"step_size": 30}}, "scheduler_args.step_size"),
        ({"scheduler": "StepLR", "scheduler_args": {"step_size": 8}}, "scheduler_args.step_size"),
        ({"scheduler": "MultiStepLR", "scheduler_args": {"milestones": [3, 60, 80]}}, "scheduler_args.milestones"),
        ({"scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 100}}, "scheduler_args.T_max"),
        ({"scheduler": "CosineAnnealingLR", "scheduler_args": {"T_max": 4}}, "scheduler_args.T_max"),
        ({"scheduler": "ReduceLROnPlateau", "scheduler_args": {}}, "scheduler_args.patience"),
        ({"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.01}}, "scheduler_args.gamma"),
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
        ({"cutmix": True, "criterion_args": {"label_smoothing": 0.1}}, "criterion_args.label_smoothing"),
        ({"optimizer": "Adam", "optimizer_args": {"lr": 0.1}}, "optimizer_args.lr"),
        ({"batch_size": 256, "optimizer_args": {"lr": "batch_linear"}}, "optimizer_args.lr"),
        ({"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "default"}, "transform_type"),
        ({"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "none"}, "transform_type"),
        (
            {"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "contrastive", "view_dependence": True},
            "view_dependence",
        ),
        ({"Occlusion": {"form": "a", "probability": 0}}, "Occlusion.probability"),
        ({"Occlusion": {"form": "a", "visibility": 1.0}}, "Occlusion.visibility"),
        ({"Blur": {"sigmas": 0}}, "Blur.sigmas"),
        ({"Noise": {"ssnrs": [1.0]}}, "Noise.ssnrs"),
    ],
)
def test_what_can_hardly_be_meant_is_said_with_its_parameter(given: dict[str, Any], key: str) -> None:
    (line,) = said(**given)
    assert line.startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("known", "given", "key"),
    [
        (Known(num_classes=5), {"primary_metric": "acc5"}, "primary_metric"),
        (Known(num_classes=1), {}, "dataset"),
        (Known(num_classes=1), {"class_subset": [3]}, "class_subset"),
        (Known(train_images=1000, steps_per_epoch=1), {"batch_size": 600}, "batch_size"),
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
    ],
)
def test_what_many_mean_is_not_doubted(given: dict[str, Any]) -> None:
    assert said(**given) == []


def test_a_warm_up_shortens_what_the_main_schedule_has() -> None:
    """A published vision transformer warms up for 30 of 300 epochs, and its cosine takes the 270 that are left."""
    warmed = {"warmup_scheduler": "LinearLR", "warmup_scheduler_args": {"total_iters": 3}}
    cosine = {"scheduler": "CosineAnnealingLR", "num_epochs": 10}
    assert said(**warmed, **cosine, scheduler_args={"T_max": 7}) == []
    (line,) = said(**warmed, **cosine, scheduler_args={"T_max": 10})
    assert "10, but there are 7 epochs" in line
    assert "for one descent use 7, what the warm-up leaves" in line


@pytest.mark.parametrize("name", published_jobs())
def test_nothing_in_a_published_job_is_doubted(name: str) -> None:
    job = Job(**migrate(published_jobs()[name]).job, name=name)
    imagenet = Known(num_classes=1000, train_images=1_281_167, steps_per_epoch=1_281_167 // 256, cycles=1)
    assert doubts(job, imagenet) == []


def test_nothing_in_an_example_is_doubted() -> None:
    for path in (REPOSITORY / "training_queue/examples").glob("*.json"):
        assert doubts(read_job(path), Known(num_classes=10, train_images=1347)) == [], path


def test_without_knowledge_of_images_and_model_nothing_is_guessed() -> None:
    job = Job(architecture="small_cnn", primary_metric="acc5", loss_cycle="uniform", ema=0.9999)
    assert all(not list(doubt(job, Known())) for doubt in DOUBTS)
