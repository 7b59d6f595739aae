"""Which operations torch would refuse on a GPU, by its own list."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.training.build import make_objective
from accel_trainer.training.determinism import ATTENTION, WITHOUT_ORDER, operations_without_order, refuse_without_order
from accel_trainer.training.meta_model import cycle_axis, meta_model

MakeJob = Callable[..., Job]
POOLING = "the gradient of AdaptiveAvgPool2d"


def operations(job: Job) -> list[str]:
    model, cycles = meta_model(job, 10, 2)
    return operations_without_order(job, model, make_objective(job, 10, cycles, cycle_axis(model)))


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("alexnet", [POOLING]),
        ("vgg11", [POOLING]),
        ("squeezenet1_1", []),  # pools to one pixel, which is a mean
        ("resnet18", []),
        ("cornet_rt", []),
        ("vit_b_32", [ATTENTION]),
    ],
)
def test_what_has_no_order_on_a_gpu_is_named(make_job: MakeJob, architecture: str, expected: list[str]) -> None:
    assert operations(make_job(architecture=architecture, image_size=96)) == expected


def test_attention_has_an_order_where_a_job_asks_for_it(make_job: MakeJob) -> None:
    assert operations(make_job(architecture="vit_b_32", image_size=96, deterministic=True)) == []


def test_clips_are_looked_at_as_clips(make_job: MakeJob) -> None:
    clips: dict[str, Any] = {"video": True, "num_views": 16, "transform_type": "none", "batch_size": 256}
    assert operations(make_job(architecture="s3d", image_size=224, **clips)) == ["the gradient of AvgPool3d"]


def test_only_a_deterministic_job_is_refused_for_them(make_job: MakeJob) -> None:
    refuse_without_order(make_job(), [POOLING])
    refuse_without_order(make_job(deterministic=True), [])
    with pytest.raises(
        UserError, match=r"deterministic: small_cnn has the gradient of AdaptiveAvgPool2d, of which no kernel"
    ):
        refuse_without_order(make_job(deterministic=True, architecture="small_cnn"), [POOLING])


def test_the_names_are_those_of_torchs_operations() -> None:
    missing = [name for name in WITHOUT_ORDER if not hasattr(torch.ops.aten, name)]
    assert missing == []
