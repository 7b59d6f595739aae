"""Which operations torch would refuse on a GPU, by its own list."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.training.build import make_objective
from accel_trainer.training.determinism import (
    ATTENTION,
    ONLY_WHERE,
    WITHOUT_ORDER,
    _Operations,
    operations_without_order,
    refuse_without_order,
)
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
    missing = [name for name in (*WITHOUT_ORDER, *ONLY_WHERE) if not hasattr(torch.ops.aten, name)]
    assert missing == []


def learned(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def places(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.int64)


def bag(mode: str) -> Tensor:
    return nn.EmbeddingBag(5, 3, mode=mode)(places(2, 2))


def scattered(how: str) -> Tensor:
    return learned(3, 3).scatter_reduce(0, places(3, 3), torch.ones(3, 3), reduce=how)


def interpolated() -> Tensor:
    lines, images, clips = learned(1, 1, 4), learned(1, 1, 4, 4), learned(1, 1, 4, 4, 4)
    parts = [F.interpolate(lines, 7, mode="linear"), F.interpolate(clips, 7, mode="trilinear")]
    for mode in ("bilinear", "bicubic"):
        parts += [F.interpolate(images, 7, mode=mode), F.interpolate(images, 3, mode=mode, antialias=True)]
    return sum((part.sum() for part in parts), torch.zeros(()))


def ctc() -> Tensor:
    lengths = torch.full((2,), 5), torch.full((2,), 2)
    return F.ctc_loss(learned(5, 2, 4).log_softmax(2), torch.ones(2, 2, dtype=torch.int64), *lengths)


def resized() -> Tensor:
    return torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.quint8).resize_(2)


# By what the documentation of torch.use_deterministic_algorithms calls them: how many operations each comes to.
REFUSED: dict[str, tuple[Callable[[], Any], int]] = {
    "torch.nn.AvgPool3d": (lambda: nn.AvgPool3d(2)(learned(1, 1, 4, 4, 4)), 1),
    "torch.nn.AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d(2)(learned(1, 1, 5, 5)), 1),
    "torch.nn.AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d(2)(learned(1, 1, 5, 5, 5)), 1),
    "torch.nn.AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d(2)(learned(1, 1, 5, 5)), 1),
    "torch.nn.FractionalMaxPool2d": (lambda: nn.FractionalMaxPool2d(2, output_size=2)(learned(1, 1, 5, 5)), 1),
    "torch.nn.FractionalMaxPool3d": (lambda: nn.FractionalMaxPool3d(2, output_size=2)(learned(1, 1, 5, 5, 5)), 1),
    "torch.nn.MaxUnpool1d": (lambda: nn.MaxUnpool1d(2)(learned(1, 1, 1), places(1, 1, 1)), 1),
    "torch.nn.MaxUnpool2d": (lambda: nn.MaxUnpool2d(2)(learned(1, 1, 1, 1), places(1, 1, 1, 1)), 1),
    "torch.nn.MaxUnpool3d": (lambda: nn.MaxUnpool3d(2)(learned(1, 1, 1, 1, 1), places(1, 1, 1, 1, 1)), 1),
    "torch.nn.functional.interpolate": (interpolated, 6),
    "torch.nn.ReflectionPad1d": (lambda: nn.ReflectionPad1d(1)(learned(1, 1, 5)), 1),
    "torch.nn.ReflectionPad2d": (lambda: nn.ReflectionPad2d(1)(learned(1, 1, 5, 5)), 1),
    "torch.nn.ReflectionPad3d": (lambda: nn.ReflectionPad3d(1)(learned(1, 1, 5, 5, 5)), 1),
    "torch.nn.NLLLoss": (lambda: nn.NLLLoss()(learned(2, 3, 4, 4), places(2, 4, 4)), 1),
    "torch.nn.CTCLoss": (ctc, 1),
    "torch.nn.EmbeddingBag": (lambda: bag("max"), 1),
    "torch.Tensor.put_": (lambda: torch.zeros(3).put_(places(1), torch.ones(1)), 1),
    "torch.histc": (lambda: torch.histc(torch.rand(5), 3), 1),
    "torch.bincount": (lambda: torch.bincount(places(3), weights=torch.ones(3)), 1),
    "torch.kthvalue": (lambda: torch.randn(3).kthvalue(1), 0),  # in older versions; it adds nothing up
    "torch.median": (lambda: learned(3, 3).median(dim=1).values, 1),
    "torch.nn.functional.grid_sample": (
        lambda: F.grid_sample(learned(1, 1, 4, 4), torch.zeros(1, 2, 2, 2), align_corners=False), 1,
    ),
    "torch.Tensor.scatter_reduce": (lambda: scattered("prod"), 1),
    "torch.Tensor.resize_": (resized, 1),
}  # fmt: skip


def documented() -> list[str]:
    """What torch.use_deterministic_algorithms refuses, by its documentation, in the version that is installed."""
    text = torch.use_deterministic_algorithms.__doc__ or ""
    refused = text.partition("operations will throw a")[2].partition("In addition, several operations")[0]
    return list(dict.fromkeys(re.findall(r"\* :(?:class|func):`(torch\.[\w.]+)`", refused)))


def found_in(act: Callable[[], Any]) -> list[str]:
    with _Operations() as seen:
        made = act()
        if isinstance(made, Tensor) and made.requires_grad:
            made.sum().backward()
    return seen.names


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("name", documented())
def test_what_torch_documents_to_have_no_order_is_found(name: str) -> None:
    act, count = REFUSED[name]
    assert len(set(found_in(act))) == count


@pytest.mark.parametrize(
    "act",
    [
        lambda: bag("sum"),
        lambda: torch.bincount(places(3)),
        lambda: scattered("sum"),
        lambda: learned(3, 3).median(),
        lambda: torch.zeros(4).resize_(2),
    ],
    ids=["sum of a bag", "bincount", "scattered sum", "median of all", "resize_"],
)
def test_its_kin_that_have_an_order_are_not(act: Callable[[], Any]) -> None:
    assert found_in(act) == []
