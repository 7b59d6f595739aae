"""What only makes training faster changes nothing else: the memory format, and compilation."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import TINY, records, train
from safetensors.torch import load_file
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor

from accel_trainer.config import Job
from accel_trainer.training.build import build
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.resume import resume
from accel_trainer.training.state.starting_point import FromState

MakeLoop = Callable[..., TrainingLoop]

pytestmark = pytest.mark.usefixtures("tiny_models")


def assert_close(one: TrainingLoop, other: TrainingLoop, atol: float) -> None:
    """The weights in their files, and the scores."""
    for path in (one.run.weights(one.job.num_epochs), one.run.ema_weights):
        ours, theirs = load_file(path), load_file(other.run.params / path.name)
        assert ours.keys() == theirs.keys() == one.plain_model.state_dict().keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=atol)
    for row, others in zip(records(one), records(other), strict=True):
        assert row.keys() == others.keys()
        assert row["loss"] == pytest.approx(others["loss"], abs=10 * atol)


def test_channels_last_trains_to_the_same_weights(make_loop: MakeLoop, tmp_path: Path) -> None:
    given = {**TINY, "architecture_args": {"dropout": 0.0}, "ema": 0.5}
    plain = train(make_loop(tmp_path / "plain", **given))
    last = make_loop(tmp_path / "last", **given, channels_last=True)
    seen: list[bool] = []
    kernel = last.plain_model.first[0].weight
    last.plain_model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    train(last)
    assert seen
    assert all(seen)
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    assert_close(last, plain, 1e-5)
    state = last.states.newest()
    assert state is not None
    assert all(value.is_contiguous() for value in state.model.values())
    resume(last, FromState(state))
    assert kernel.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("architecture", ["r3d_18", "cornet_rt"])
def test_models_of_clips_may_be_channels_last(make_job: Callable[..., Job], architecture: str) -> None:
    clips = {"architecture": architecture, "video": True, "num_views": 2, "batch_size": 8}
    model = build(make_job(**clips, channels_last=True), world_size=1).model
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    kernels = [parameter for parameter in model.parameters() if parameter.dim() in formats]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=formats[kernel.dim()]) for kernel in kernels)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_trains_to_the_same_weights_and_plain_names(make_loop: MakeLoop, tmp_path: Path) -> None:
    """Its representation can be tested too: hooks that come after the compilation are called."""
    given: dict[str, Any] = {
        **TINY,
        "architecture_args": {"dropout": 0.0},
        "num_epochs": 1,
        "ema": 0.5,
        "knn_interval": 1,
        "save_interval": 1,
    }
    plain = train(make_loop(tmp_path / "plain", **given))
    compiled = make_loop(tmp_path / "compiled", **given, compile=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    # Fewer graphs, and in C++ that is compiled sooner.
    with dynamo.patch(assume_static_by_default=False), inductor.patch({"cpp.simdlen": 1}):
        train(compiled)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    assert_close(compiled, plain, 1e-4)
    assert [row["knn"] for row in records(compiled) if "knn" in row] == pytest.approx(
        [row["knn"] for row in records(plain) if "knn" in row], abs=2
    )
