import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from accel_trainer.config import Job
from accel_trainer.core import keyed_random
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.errors import UserError
from accel_trainer.training.build import build
from accel_trainer.training.check import JobChecker, check_writable
from accel_trainer.training.meta_model import count_parameters

MakeJob = Callable[..., Job]


# -- for training ----------------------------------------------------------------------------------------------


def test_a_job_becomes_what_its_training_needs(make_job: MakeJob) -> None:
    job = make_job(batch_size=32, gradient_accumulation=2, class_subset=[3, 1, 4], optimizer="AdamW")
    parts = build(job, world_size=4)
    assert list(parts.images.classes) == ["3", "1", "4"]
    assert parts.sampling.steps_per_epoch == len(parts.images.train.labels) // 32
    assert parts.model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert isinstance(parts.optimizer, torch.optim.AdamW)
    assert parts.optimizer.param_groups[0]["params"] == list(parts.model.parameters())
    assert parts.train_reader.replace_corrupt
    assert not parts.val.reader.replace_corrupt


def test_the_initialization_is_torchvisions_and_follows_from_the_seed_alone(make_job: MakeJob) -> None:
    def initial(seed: int) -> dict[str, torch.Tensor]:
        return dict(build(make_job(seed=seed), world_size=1).model.state_dict())

    torch.manual_seed(keyed_random.key(5, "initialization"))
    expected = models.squeezenet1_1(num_classes=10).state_dict()
    torch.manual_seed(123)
    assert all(torch.equal(value, expected[name]) for name, value in initial(seed=5).items())
    assert not torch.equal(initial(seed=6)["features.0.weight"], expected["features.0.weight"])


# -- on paper ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["squeezenet1_1", "regnet_y_400mf", "resnet18"])
def test_a_job_on_paper_has_the_numbers_of_the_real_one(make_job: MakeJob, architecture: str) -> None:
    job = make_job(architecture=architecture, batch_size=100, num_epochs=3)
    summary = JobChecker()(job, world_size=1)
    assert summary.parameters == count_parameters(models.get_model(architecture, num_classes=10))
    assert (summary.classes, summary.train_images, summary.val_images) == (10, 1347, 450)
    assert (summary.steps_per_epoch, summary.num_epochs) == (13, 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"architecture": "resnet19"}, "architecture: no model 'resnet19'"),
        ({"architecture": "inception_v3"}, "image_size: inception_v3 does not work with images of 32 pixels"),
        ({"architecture": "alexnet"}, "image_size: alexnet does not work with images of 32 pixels"),
        ({"architecture_args": {"depth": 3}}, "architecture_args.depth"),
        ({"dataset": "digit"}, "dataset: no folder "),
        ({"class_subset": [10]}, "class_subset: no class 10"),
        ({"criterion": "CrossEntropie"}, "criterion: 'CrossEntropie' cannot be used here"),
        ({"optimizer": "Sgd"}, "optimizer: 'Sgd' cannot be used here"),
        ({"scheduler": "StepsLR"}, "scheduler: 'StepsLR' cannot be used here"),
        ({"trackers": ["wandbb"]}, "trackers: no tracker 'wandbb'"),
        ({"batch_size": 100}, "batch_size: 100 cannot be divided by 3 processes; use 99 or 102"),
        (
            {"class_subset": [3]},
            "class_subset: there is one class, '3': with CrossEntropyLoss every answer would be right",
        ),
        (
            {"class_subset": [3], "criterion": "SupConLoss", "num_views": 2},
            "class_subset: there is one class, '3': with SupConLoss every answer would be right",
        ),
        ({"batch_size": 1350}, "batch_size: 1350 is more than the 1347 training images"),
        ({"model_dir": "/dev/null/run"}, "model_dir: /dev/null/run: /dev/null is a file"),
    ],
)
def test_what_cannot_work_is_found_on_paper(make_job: MakeJob, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        JobChecker()(make_job(**{"batch_size": 96, **given}), world_size=3)
    assert str(caught.value).startswith(said)


OTHERS = """
import numpy as np
import torch
from torch import nn

MEAN = torch.zeros(1)


class Base(nn.Module):
    def __init__(self, num_classes=7):
        super().__init__()
        self.readout = nn.Linear(3, num_classes)

    def forward(self, images):
        return self.readout((images - MEAN).mean((2, 3)))


class ReadsValues(Base):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.gain = torch.ones(1).item()


class HasNumpy(Base):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.register_buffer("gain", torch.from_numpy(np.ones(10, dtype="float32")))

    def forward(self, images):
        return super().forward(images) * self.gain


class Branches(Base):
    def forward(self, images):
        return super().forward(images) if images.mean() < 1 else None


def fixed(num_classes):
    return Base()


class CyclesFirst(Base):
    def forward(self, images):
        return torch.stack([super(CyclesFirst, self).forward(images)] * 5)


class Dictionary(Base):
    def forward(self, images):
        return {"logits": super().forward(images)}


class Broken(Base):
    def forward(self, images):
        return self.weights["V1"]
"""


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lab_of_others.py").write_text(OTHERS)
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "lab_of_others", raising=False)
    monkeypatch.setenv(ALLOW_VARIABLE, "lab_of_others")


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("name", ["Base", "ReadsValues", "HasNumpy", "Branches"])
def test_what_the_meta_device_cannot_do_others_models_may(make_job: MakeJob, name: str) -> None:
    job = make_job(architecture=f"lab_of_others:{name}")
    assert JobChecker()(job, world_size=1).parameters == 3 * 10 + 10
    assert not any(parameter.is_meta for parameter in build(job, world_size=1).model.parameters())


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fixed", "gives 7 logits, but there are 10 classes; let its constructor take `num_classes`"),
        ("CyclesFirst", "gives a tensor (5, 2, 10) for 2 images; it must be (batch, classes), (batch, cycles"),
        ("Dictionary", "gives something of type dict, not logits"),
        ("Broken", "AttributeError: 'Broken' object has no attribute 'weights' (lab_of_others.py, line 54)"),
    ],
)
def test_outputs_of_user_models_are_checked_on_meta_and_before_training(
    make_job: MakeJob, name: str, said: str
) -> None:
    job = make_job(architecture=f"lab_of_others:{name}")
    for prepare in (JobChecker(), build):
        with pytest.raises(UserError) as caught:
            prepare(job, world_size=1)
        assert said in str(caught.value)


@pytest.mark.usefixtures("others")
def test_others_weights_follow_from_the_seed_alone(make_job: MakeJob) -> None:
    job = make_job(architecture="lab_of_others:Base", seed=5)
    weight = build(job, world_size=1).model.get_parameter("readout.weight")
    torch.manual_seed(keyed_random.key(5, "initialization"))
    assert torch.equal(weight, torch.nn.Linear(3, 10).weight)


def test_a_model_of_timm_is_checked_like_any_other(make_job: MakeJob) -> None:
    job = make_job(architecture="timm:vit_tiny_patch16_224", architecture_args={"depth": 1})
    assert JobChecker()(job, world_size=1).parameters > 500_000
    with pytest.raises(
        UserError, match=r"image_size: timm:vit_tiny_patch16_224 does not work with images of 32 pixels"
    ):
        JobChecker()(make_job(architecture=job.architecture, architecture_args={"img_size": 48}), world_size=1)


def test_building_on_the_meta_device_writes_nothing(make_job: MakeJob) -> None:
    job = make_job()
    JobChecker()(job, world_size=1)
    check_writable(job)
    assert not job.run_path.parent.exists()
