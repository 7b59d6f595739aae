"""What torch is told of kernels, and how images and weights lie in memory. No GPU is needed to be told."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

from accel_trainer.config import Job
from accel_trainer.core.errors import InvalidJob
from accel_trainer.training.runtime.kernels import (
    chosen_kernels,
    in_memory_format,
    is_channels_last,
    kernels_line,
    store_weights,
)

MakeJob = Callable[..., Job]
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul


def settings() -> dict[str, Any]:
    return {
        "benchmark": CUDNN.benchmark,
        "deterministic": CUDNN.deterministic,
        "tf32": (CUDNN.allow_tf32, MATMUL.allow_tf32),
        "algorithms": torch.get_deterministic_debug_mode(),
        "fills": torch.utils.deterministic.fill_uninitialized_memory,
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


@pytest.fixture(params=[False, True], ids=["all off before", "all on before"])
def before(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    flags = [(CUDNN, "benchmark"), (CUDNN, "deterministic"), (CUDNN, "allow_tf32"), (MATMUL, "allow_tf32")]
    were = [getattr(*flag) for flag in flags]
    for place, name in flags:
        setattr(place, name, request.param)
    yield settings()
    for (place, name), value in zip(flags, were, strict=True):
        setattr(place, name, value)


ORDERED = {"benchmark": False, "deterministic": True, "workspace": ":4096:8", "fills": False}
CASES: dict[str, tuple[dict[str, Any], torch.device, dict[str, Any]]] = {
    "on a GPU what has no order is taken as it is": ({}, CUDA, {**ORDERED, "algorithms": 1, "tf32": (False, False)}),
    "or refused": ({"deterministic": True}, CUDA, {**ORDERED, "algorithms": 2}),
    "or the fastest": ({"fast_kernels": True}, CUDA, {"benchmark": True, "deterministic": False, "algorithms": 0}),
    "TF32 is opted in": ({"tf32": True}, CUDA, {"tf32": (True, True), "algorithms": 1}),
    "on a CPU torch is left alone": ({}, CPU, {"algorithms": 0, "workspace": ":16:8", "fills": True}),
    "unless a job says so": ({"deterministic": True}, CPU, {"algorithms": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_job_chooses_its_kernels_and_leaves_the_process_as_it_was(
    make_job: MakeJob, before: dict[str, Any], case: str
) -> None:
    given, device, expected = CASES[case]
    with suppress(KeyError), chosen_kernels(make_job(**given), device):
        found = settings()
        assert {key: found[key] for key in expected} == expected
        raise KeyError("in the middle of a training")
    assert settings() == before


def test_what_has_no_order_is_named_by_us_and_not_in_the_middle_of_a_training(make_job: MakeJob) -> None:
    with warnings.catch_warnings(record=True) as told, chosen_kernels(make_job(), CUDA):
        warnings.filterwarnings("default", "something else")
        warnings.warn("upsample does not have a deterministic implementation, but you set ...", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in told] == ["something else"]


def test_the_fastest_kernels_contradict_those_of_one_order(make_job: MakeJob) -> None:
    with pytest.raises(InvalidJob, match=r"fast_kernels: .*deterministic refuses such"):
        make_job(deterministic=True, fast_kernels=True)


def test_what_is_given_up_for_speed_is_said(make_job: MakeJob) -> None:
    assert kernels_line(make_job()) is None
    assert kernels_line(make_job(tf32=True, fast_kernels=True)) == (
        "TF32 in place of float32 and the fastest kernels, which may come to other bits in another attempt"
    )


CLIPS = {"video": True, "num_views": 4, "transform_type": "none"}


@pytest.mark.parametrize(
    ("given", "device", "expected"),
    [
        ({}, CUDA, True),
        ({}, CPU, False),
        ({}, torch.device("mps"), False),
        ({"rules": 2}, CUDA, False),
        ({"rules": 1}, CUDA, False),
        (CLIPS, CUDA, False),
        ({"channels_last": False}, CUDA, False),
        ({"channels_last": True}, CPU, True),
        ({"channels_last": True, "rules": 1}, CPU, True),
    ],
)
def test_images_lie_channels_last_on_a_gpu_or_where_the_job_says_so(
    make_job: MakeJob, given: dict[str, Any], device: torch.device, expected: bool
) -> None:
    assert is_channels_last(make_job(**given), device) is expected


def test_kernels_of_one_pixel_lie_as_their_gradients_will(make_job: MakeJob) -> None:
    """torch takes [8, 4, 1, 1] for channels last however it lies; by the rules before 3 it was left as it was."""
    for rules, strides in ((2, (4, 1, 1, 1)), (3, (4, 1, 4, 4))):
        job = make_job(channels_last=True, rules=rules)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1))
        values = [parameter.clone() for parameter in model.parameters()]
        store_weights(job, model, CPU)
        assert model[1].weight.stride() == strides
        assert model[0].weight.stride() == (27, 1, 9, 3)
        for parameter, value in zip(model.parameters(), values, strict=True):
            assert torch.equal(parameter, value)
        images = in_memory_format(job, torch.randn(2, 3, 6, 6))
        model(images).sum().backward()
        if rules == 3:
            assert [p.grad.stride() for p in model.parameters()] == [p.stride() for p in model.parameters()]
