"""What is no floating point number is never averaged, and what modules add to their state is saved with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import TINY, assert_same, outcome, taken_up, train, train_until
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.meta_model import make_model, meta_model
from accel_trainer.training.optim.averaging import Averages

MakeLoop = Callable[..., TrainingLoop]


class Counting(nn.Module):
    """Integers of several kinds beside floating point numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.frozen_index = nn.Parameter(torch.tensor([5, 200], dtype=torch.uint8), requires_grad=False)
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int16))

    def step(self) -> None:
        self.norm(torch.randn(8, 3))
        with torch.no_grad():
            self.norm.weight.add_(torch.randn(3))
            self.frozen_index.add_(7)
            self.steps += 1
            self.flags.logical_not_()
            self.seen += torch.tensor([1, 300], dtype=torch.int16)


def is_number(value: Tensor) -> bool:
    return value.is_floating_point()


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.9, 0.999, 0.9999])
def test_the_moving_average_has_the_newest_integers_for_every_decay(decay: float) -> None:
    torch.manual_seed(0)
    model = Counting()
    averages = Averages(model, ema_decay=decay, swa_start=None)
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for _ in range(5):
        model.step()
        averages.after_step(model)
        torchs.update_parameters(model)
        assert averages.ema is not None
        own, newest, published = averages.ema.state_dict(), model.state_dict(), torchs.module.state_dict()
        for name, value in own.items():
            expected = published if is_number(value) else newest
            assert torch.equal(value, expected[name]), name
    assert int(own["norm.num_batches_tracked"]) == 5


def test_the_mean_of_epochs_has_the_newest_integers_and_floats_as_torch() -> None:
    torch.manual_seed(0)
    model = Counting()
    averages = Averages(model, ema_decay=None, swa_start=1)
    floats = nn.Sequential(model.norm)
    torchs = AveragedModel(floats)
    for epoch in (1, 2, 3):
        model.step()
        averages.after_epoch(epoch, model)
        torchs.update_parameters(floats)
    model.step()
    averaged = averages.swa_after(4, model)
    torchs.update_parameters(floats)
    assert averaged is not None
    own, newest = averaged.state_dict(), model.state_dict()
    assert all(torch.equal(value, newest[name]) for name, value in own.items() if not is_number(value))
    assert torch.equal(own["norm.weight"], torchs.module[0].weight)
    assert not torch.equal(own["norm.weight"], newest["norm.weight"])


# -- what modules add to their state ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_models")
def test_a_tensor_that_a_module_adds_to_its_state_is_resumed_bit_for_bit(make_loop: MakeLoop, tmp_path: Path) -> None:
    job = {**TINY, "architecture": "tiny_models:WithExtraState", "ema": 0.5, "swa": {"start": 1}}
    whole = train(make_loop(tmp_path / "whole", **job))
    expected = outcome(whole)
    stopped = make_loop(tmp_path / "stopped", **job)
    assert not train_until(stopped, 3)
    resumed = train(taken_up(make_loop(tmp_path / "stopped", **job)))
    assert_same(outcome(resumed), expected)
    assert resumed.plain_model.get_submodule("history").seen == whole.plain_model.get_submodule("history").seen != []
    saved = load_file(resumed.run.ema_weights)["history._extra_state"]
    assert saved.tolist() == resumed.plain_model.get_submodule("history").seen


@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("dict", r"history adds a dict to its state \(_extra_state\); weights are saved as tensors"),
        ("one way", "history has get_extra_state and no set_extra_state; write both, or neither"),
        ("fails", r"ValueError: it is empty \(tiny_models\.py, line"),
        ("sparse", "mask is a sparse or nested tensor"),
    ],
)
def test_state_that_cannot_be_saved_is_refused_before_training(
    make_job: Callable[..., Job], kind: str, said: str
) -> None:
    given: dict[str, Any] = {"architecture": "tiny_models:WithExtraState", "architecture_args": {"kind": kind}}
    for build in (lambda job: meta_model(job, 10, 8), lambda job: make_model(job, 10)):
        with pytest.raises(UserError, match=f"architecture: .*{said}"):
            build(make_job(**given))
