"""Losses that are scaled as in fp16, by torch's GradScaler on the CPU, in the product's own loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import TINY, assert_same, outcome, taken_up, train, train_until
from torch import Tensor
from torch.amp import GradScaler

from accel_trainer.training import step
from accel_trainer.training.loop import TrainingLoop

pytestmark = pytest.mark.usefixtures("tiny_models")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "decides on the device": {},
    "the scaler decides": {"optimizer": "ASGD", "optimizer_args": {"lr": 0.05}},
}
EVERY = pytest.mark.parametrize("given", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
FIRST_SCALE, GROWS_AFTER = 16.0, 3


@pytest.fixture
def make_scaled(make_loop: Callable[..., TrainingLoop], monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainingLoop]:
    """Loops that scale their losses; in the steps `overflows` the gradients are infinite."""
    prepare = step.prepare

    def with_scaler(accelerator: Any, *parts: Any, **how: Any) -> Any:
        accelerator.scaler = GradScaler("cpu", init_scale=FIRST_SCALE, growth_interval=GROWS_AFTER)
        return prepare(accelerator, *parts, **how)

    def make(folder: Path, overflows: tuple[int, ...] = (), *, is_scaled: bool = True, **given: Any) -> TrainingLoop:
        monkeypatch.setattr(step, "prepare", with_scaler if is_scaled else prepare)
        loop = make_loop(folder, **{**TINY, "batch_size": 64, **given})

        def overflow(gradient: Tensor) -> Tensor:
            return gradient * torch.inf if loop.progress.global_step + 1 in overflows else gradient

        loop.plain_model.decoder.weight.register_hook(overflow)
        return loop

    return make


def scale_of(loop: TrainingLoop) -> tuple[float, int]:
    """The scale, and for how many steps it has not changed."""
    state = loop.accelerator.scaler.state_dict()
    return state["scale"], state["_growth_tracker"]


@EVERY
def test_scaled_losses_train_to_the_same_bits_and_the_scale_grows(
    make_scaled: Callable[..., TrainingLoop], tmp_path: Path, given: dict[str, Any]
) -> None:
    """Powers of two change no digit of a float32."""
    plain = train(make_scaled(tmp_path / "plain", is_scaled=False, **given))
    scaled = train(make_scaled(tmp_path / "scaled", **given))
    steps = scaled.progress.global_step
    assert steps >= 2 * GROWS_AFTER
    assert scale_of(scaled) == (FIRST_SCALE * 2 ** (steps // GROWS_AFTER), steps % GROWS_AFTER)
    assert_same(outcome(scaled), outcome(plain))


@EVERY
def test_a_step_whose_gradients_overflow_is_skipped(
    make_scaled: Callable[..., TrainingLoop], tmp_path: Path, given: dict[str, Any]
) -> None:
    """The weights stay, the scale is halved, and a schedule by step does not count it."""
    by_step = {"schedule_by": "step", "scheduler": "StepLR", "scheduler_args": {"step_size": 1, "gamma": 0.5}}
    loop = make_scaled(tmp_path / "run", overflows=(2,), **{**given, **by_step})
    seen: list[tuple[list[Tensor], float, float]] = []
    decide = loop.agreement.at_step

    def at_step(*wishes: Any) -> Any:
        rate = loop.optimizer.param_groups[0]["lr"]
        seen.append(([p.detach().clone() for p in loop.plain_model.parameters()], scale_of(loop)[0], rate))
        return decide(*wishes)

    loop.agreement.at_step = at_step
    loop.job = loop.job.model_copy(update={"num_epochs": 1})
    train(loop)
    (first, *_), (second, scale, _), (third, *_) = seen[:3]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(second, third, strict=True))
    assert scale == FIRST_SCALE / 2
    assert [rate for *_, rate in seen[:4]] == [0.05, 0.025, 0.025, 0.0125]
    assert all(p.isfinite().all() for p in loop.plain_model.parameters())


@EVERY
@pytest.mark.parametrize("look", [2, 4, 7])
def test_a_resumed_run_scales_as_one_that_was_not_stopped(
    make_scaled: Callable[..., TrainingLoop], tmp_path: Path, given: dict[str, Any], look: int
) -> None:
    overflows = (1, 5)
    whole = train(make_scaled(tmp_path / "whole", overflows, **given))
    assert not train_until(make_scaled(tmp_path / "parts", overflows, **given), look)
    resumed = taken_up(make_scaled(tmp_path / "parts", overflows, **given))
    assert 0 < resumed.progress.global_step < whole.progress.global_step
    train(resumed)
    assert scale_of(resumed) == scale_of(whole)
    assert_same(outcome(resumed), outcome(whole))
