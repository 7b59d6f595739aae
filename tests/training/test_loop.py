"""The loop, in this process: what the end-to-end tests would need a whole training for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loops import TINY, train
from safetensors.torch import load_file

from accel_trainer.training.loop import Diverged, Stopped, TrainingLoop


@pytest.fixture
def loop(make_loop: Callable[..., TrainingLoop], tmp_path: Path) -> TrainingLoop:
    return make_loop(tmp_path / "run")


def test_a_state_after_a_loss_that_was_not_finite_does_not_replace_a_good_one(loop):
    loop._save_state()
    loop.progress.step = loop.progress.global_step = 1
    loop.meter.sums[0] = torch.nan
    loop._save_state()
    assert loop.states.newest().progress.global_step == 0


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(loop):
    judge = loop.objective.judge

    def explode(output, batch, *, is_shared):
        judged = judge(output, batch, is_shared=is_shared)
        return replace(judged, share=judged.share * (torch.inf if loop.progress.global_step == 5 else 1))

    loop.objective.judge = explode
    with pytest.raises(Diverged, match=r"not finite at step 6 \(epoch 2, learning rate 0\.001\)"):
        train(loop)
    assert loop.states.newest().progress.epoch == 1


def test_a_stop_during_validation_loses_nothing_of_the_epoch(loop):
    """The training of the epoch is over, its validation is not: it goes on with the validation."""
    whole = loop._evaluate

    def stopped_in_between(*args):
        loop.stop.signal = 15
        return whole(*args)

    loop._evaluate = stopped_in_between
    with pytest.raises(Stopped):
        train(loop)
    progress = loop.states.newest().progress
    assert (progress.epoch, progress.step) == (0, loop.parts.sampling.steps_per_epoch)
    assert loop.states.newest().trainer["sums"][0, 2] == loop.parts.sampling.examples_per_epoch


CLIPS = {
    "architecture": "cornet_rt",
    "architecture_args": {"features": [32] * 4, "num_cycles": 5, "return_cycles": "all"},
    "image_size": 8,
    "batch_size": 64,
    "num_epochs": 1,
    "video": True,
    "Blur": {"sigmas": [4, 2, 0], "probs": [1, 1, 1]},
}


@pytest.mark.parametrize(("loss_cycle", "reported"), [(None, 4), (3, 3), ("uniform", 4)])
def test_a_recurrent_model_is_trained_on_clips_whose_frames_are_blurred(make_loop, tmp_path, loss_cycle, reported):
    """And the accuracy that counts is that of the cycle that is trained; each has its own beside it."""
    loop = make_loop(tmp_path / "run", **CLIPS, loss_cycle=loss_cycle)
    shown: list[torch.Tensor] = []
    loop.plain_model.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    before = [parameter.clone() for parameter in loop.plain_model.parameters()]
    train(loop)
    assert {tuple(clips.shape[1:]) for clips in shown} == {(3, 3, 8, 8)}
    sharpness = [shown[0][:, frame].diff(dim=-1).abs().mean() for frame in range(3)]
    assert sharpness[0] < sharpness[1] < sharpness[2]  # the last has no blur
    assert sum(len(clips) for clips in shown) == 4 * 64 + loop.parts.val.num_images
    assert any(not torch.equal(now, then) for now, then in zip(loop.plain_model.parameters(), before, strict=True))
    for row in loop.progress.history:
        assert [f"acc1_cycle{cycle}" in row for cycle in range(6)] == [True] * 5 + [False]
        assert row["acc1"] == row[f"acc1_cycle{reported}"]
    text = loop.run.performance.read_text().splitlines()[0]
    assert text.startswith("epoch,split,loss,acc1,acc5,acc1_cycle0,")


@pytest.mark.usefixtures("tiny_models")
def test_accumulated_micro_batches_make_the_same_step(make_loop, tmp_path):
    """Accelerate divides by their number, and the loop makes up for that."""
    given = {**TINY, "architecture": "tiny_models:Cycles", "criterion_args": {"weight": [0.5, 2.0]}}
    whole = train(make_loop(tmp_path / "whole", **given)).plain_model.state_dict()
    parts = train(make_loop(tmp_path / "parts", **given, gradient_accumulation=4)).plain_model.state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("tiny_models")
def test_statistics_of_frozen_modules_stay_in_training_and_in_swa(make_loop, tmp_path):
    start = make_loop(tmp_path / "parent", **TINY, num_epochs=1)
    weights = train(start).run.weights(1)
    frozen = {"starting_params": str(weights), "freeze_modules": ["first"]}
    loop = make_loop(tmp_path / "run", **TINY, finetune=True, finetune_args=frozen, swa={"start": 1}, ema=0.5)
    loop.plain_model.load_state_dict(load_file(weights))
    expected = load_file(weights)
    train(loop)
    for path in (loop.run.weights(2), loop.run.swa_weights, loop.run.ema_weights):
        for name, value in load_file(path).items():
            if value.is_floating_point():
                assert torch.equal(value, expected[name]) == name.startswith("first."), name
