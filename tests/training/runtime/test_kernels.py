"""What torch is told of kernels, and how images and weights lie in memory. No GPU is needed to be told."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

from accel_trainer.config import Job
from accel_trainer.core.errors import InvalidJob, UserError
from accel_trainer.training.runtime import kernels
from accel_trainer.training.runtime.kernels import (
    chosen_kernels,
    in_memory_format,
    is_channels_last,
    kernels_line,
    refuse_late_choice,
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


@pytest.mark.parametrize("word", ["medium", "high", "highest"])
def test_a_process_may_have_said_how_float32_is_computed_in_the_older_way(make_job: MakeJob, word: str) -> None:
    torch.set_float32_matmul_precision(word)
    try:
        with chosen_kernels(make_job(), CPU):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not MATMUL.allow_tf32
        assert torch.get_float32_matmul_precision() == word
        assert MATMUL.allow_tf32 == (word != "highest")
    finally:
        torch.set_float32_matmul_precision("highest")


IN_THE_NEWER_WAY = """
import torch
from accel_trainer.data.precision import float32_as

places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
for place in places:
    place.fp32_precision = "tf32"
for tf32, words in ((False, ["ieee"] * 2), (True, ["tf32"] * 2)):
    with float32_as(tf32=tf32):
        assert [place.fp32_precision for place in places[:2]] == words or not tf32, [p.fp32_precision for p in places]
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    assert [place.fp32_precision for place in places] == ["tf32"] * 3
"""


@pytest.mark.skipif(not hasattr(MATMUL, "fp32_precision"), reason="torch says it in the older way only")
def test_or_in_the_newer_one() -> None:
    subprocess.run([sys.executable, "-c", IN_THE_NEWER_WAY], check=True, timeout=120)


@pytest.mark.parametrize(
    ("device", "is_cuda_used", "variable", "more", "is_said"),
    [
        (CUDA, True, None, {}, True),
        (CUDA, True, ":16:8", {}, True),
        (CUDA, True, ":4096:8", {}, False),
        (CUDA, False, None, {}, False),
        (CUDA, True, None, {"fast_kernels": True}, False),
        (CPU, True, None, {}, False),
    ],
)
def test_a_process_that_has_used_cuda_is_told_that_one_order_comes_too_late(
    make_job: MakeJob,
    device: torch.device,
    is_cuda_used: bool,
    variable: str | None,
    more: dict[str, Any],
    is_said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(kernels, "reads_workspace_late", lambda: False)
    monkeypatch.setattr(logging.getLogger("accel_trainer"), "propagate", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", variable)
    refuse_late_choice(make_job(**more), device, is_cuda_used=is_cuda_used)
    assert any("CUDA was used in this process before" in line for line in caplog.messages) == is_said
    if is_said:
        with pytest.raises(UserError, match=r"deterministic: CUDA was used .* set it before CUDA is used, or train by"):
            refuse_late_choice(make_job(deterministic=True), device, is_cuda_used=is_cuda_used)
    monkeypatch.setattr(kernels, "reads_workspace_late", lambda: True)
    refuse_late_choice(make_job(deterministic=True), device, is_cuda_used=is_cuda_used)


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
