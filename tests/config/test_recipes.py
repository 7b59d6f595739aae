"""Nothing is doubted in the recipes by which torchvision's published weights, and DeiT's, were trained.

They are those of pytorch/vision, references/classification/README.md: batches of all GPUs together. Warm-ups of
torchvision take their epochs from the cosine; what a job cannot say (repeated augmentation, AutoAugment) is left out.
"""

from typing import Any

import pytest

from accel_trainer import Job
from accel_trainer.config.doubts import doubts
from accel_trainer.config.known import Known
from accel_trainer.training.check import learning_rates

NUM_IMAGES = 1_281_167


def cosine(epochs: int, warmup: int, start: float, lowest: float = 0.0) -> dict[str, Any]:
    return {
        "num_epochs": epochs,
        "scheduler": "CosineAnnealingLR",
        "scheduler_args": {"T_max": epochs - warmup, "eta_min": lowest},
        "warmup_scheduler": "LinearLR",
        "warmup_scheduler_args": {"start_factor": start, "total_iters": warmup},
    }


def sgd(rate: float, decay: float) -> dict[str, Any]:
    return {"optimizer": "SGD", "optimizer_args": {"lr": rate, "momentum": 0.9, "weight_decay": decay}}


def adamw(rate: float, decay: float) -> dict[str, Any]:
    return {"optimizer": "AdamW", "optimizer_args": {"lr": rate, "weight_decay": decay}}


def step(epochs: int, size: int, gamma: float) -> dict[str, Any]:
    return {"num_epochs": epochs, "scheduler": "StepLR", "scheduler_args": {"step_size": size, "gamma": gamma}}


def softened(smoothing: float, mixup: float) -> dict[str, Any]:
    return {
        "criterion_args": {"label_smoothing": smoothing},
        "mixup": {"alpha": mixup},
        "cutmix": {"alpha": 1.0},
    }


# What torchvision calls its new recipe: 600 epochs with TrivialAugment, erasing and an average of the weights.
NEW = {
    **softened(0.1, 0.2),
    "batch_size": 1024,
    "transform_type": "default-trivialaugment",
    "randomerase": 0,
    "decay_norm_and_bias": False,
    "ema": 0.99998,
}
RECIPES: dict[str, dict[str, Any]] = {
    "resnet50 v1": {**sgd(0.1, 1e-4), **step(90, 30, 0.1), "batch_size": 256},
    "resnext50_32x4d v1": {**sgd(0.1, 1e-4), **step(100, 30, 0.1), "batch_size": 256},
    "alexnet": {**sgd(0.01, 1e-4), **step(90, 30, 0.1), "batch_size": 256},
    "mobilenet_v2 v1": {**sgd(0.045, 4e-5), **step(300, 1, 0.98), "batch_size": 256},
    "mobilenet_v3_large": {
        **step(600, 2, 0.973),
        "optimizer": "RMSprop",
        "optimizer_args": {"lr": 0.064, "alpha": 0.9, "eps": 0.0316, "momentum": 0.9, "weight_decay": 1e-5},
        "batch_size": 1024,
        "randomerase": 0,
    },
    "regnet_x_400mf v1": {**sgd(0.8, 5e-5), **cosine(100, 5, 0.1), "batch_size": 1024},
    "resnet50 v2": {**NEW, **sgd(0.5, 2e-5), **cosine(600, 5, 0.01)},
    "efficientnet_v2_s": {**NEW, **sgd(0.5, 2e-5), **cosine(600, 5, 0.01)},
    "shufflenet_v2_x1_5": {**NEW, **sgd(0.5, 2e-5), **cosine(600, 5, 0.01)},
    "convnext_tiny": {**NEW, **adamw(1e-3, 0.05), **cosine(600, 5, 0.01)},
    "vit_b_16": {
        **NEW,
        **adamw(0.003, 0.3),
        **cosine(300, 30, 0.033),
        **softened(0.11, 0.2),
        "batch_size": 512,
        "transform_type": "default-randaugment",
        "clip_grad_norm": 1.0,
    },
    "swin_t": {
        **NEW,
        **adamw(1e-3, 0.05),
        **cosine(300, 20, 0.01, lowest=1e-5),
        **softened(0.1, 0.8),
        "clip_grad_norm": 5.0,
    },
    "maxvit_t": {
        **NEW,
        **adamw(3e-3, 0.05),
        **cosine(400, 32, 1e-5, lowest=1e-5),
        **softened(0.1, 0.8),
        "batch_size": 4096,
        "clip_grad_norm": 1.0,
    },
    "DeiT": {
        **NEW,
        **adamw(1e-3, 0.05),
        **cosine(300, 5, 1e-3, lowest=1e-5),
        **softened(0.1, 0.8),
        "transform_type": "default-randaugment",
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_in_a_published_recipe_is_doubted(name: str) -> None:
    job = Job(architecture="resnet50", dataset="ILSVRC2012", **RECIPES[name])
    steps = NUM_IMAGES // RECIPES[name]["batch_size"]
    known = Known(
        num_classes=1000,
        train_images=NUM_IMAGES,
        steps_per_epoch=steps,
        cycles=1,
        rates=learning_rates(job, steps),
        on_cpu=False,
    )
    assert [str(doubt) for doubt in doubts(job, known)] == []
