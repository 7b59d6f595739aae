"""The loop, in this process: what the end-to-end tests would need a whole training for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from loops import TINY, records, train
from safetensors.torch import load_file

from accel_trainer.run.status import Divergence
from accel_trainer.training.failures import Diverged
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.runtime.ranks import Decision, Stopped


@pytest.fixture
def loop(make_loop: Callable[..., TrainingLoop], tmp_path: Path) -> TrainingLoop:
    return make_loop(tmp_path / "run")


# -- what is not finite ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoilt", ["weight", "statistic", "momentum", "a loss that nobody has looked at yet"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.usefixtures("tiny_models")
def test_what_is_not_finite_never_becomes_a_state(make_loop, tmp_path, spoilt, value):
    """The loss of the step that spoils them may be finite."""
    loop = make_loop(tmp_path / "run", **TINY)
    loop.stop.signal = 15
    with pytest.raises(Stopped):  # after the first step
        train(loop)
    loop.save_state()
    loop.progress.step = loop.progress.global_step = 2
    (momentum, *_) = (state["momentum_buffer"] for state in loop.optimizer.state.values())
    tensors = {
        "weight": loop.plain_model.decoder.weight.detach(),
        "statistic": loop.plain_model.first[1].running_var,
        "momentum": momentum,
    }
    if spoilt in tensors:
        tensors[spoilt].view(-1)[0] = value
    else:
        loop.step.first_bad.note(torch.tensor(False), 2)
    with pytest.raises(Diverged, match="the loss or its gradient was not finite at step 2 "):
        loop.save_state()
    assert loop.states.newest().progress.global_step == 1


@pytest.mark.usefixtures("tiny_models")
def test_weights_spoiled_in_the_last_step_of_an_epoch_are_not_saved(make_loop, tmp_path):
    loop = make_loop(tmp_path / "run", **TINY, save_interval=1, ema=0.5)
    weight = loop.plain_model.decoder.weight
    weight.register_hook(lambda gradient: gradient * (torch.inf if loop.progress.global_step == 3 else 1))
    with pytest.raises(Diverged, match="at step 4") as caught:
        train(loop)
    assert (caught.value.where.step, caught.value.where.epoch) == (4, 2)
    assert not loop.run.weights(2).exists()
    for path in loop.run.params.iterdir():
        assert all(value.isfinite().all() for value in load_file(path).values()), path
    assert loop.states.newest().progress.epoch == 1


@pytest.mark.usefixtures("tiny_models")
def test_a_mask_of_infinity_in_a_model_is_no_divergence(make_loop, tmp_path, monkeypatch):
    def with_mask(self, *args, made=tiny_models.NormAndDropout.__init__, **keywords):
        made(self, *args, **keywords)
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    monkeypatch.setattr(tiny_models.NormAndDropout, "__init__", with_mask)
    train(make_loop(tmp_path / "run", **TINY))


def darken(loop: TrainingLoop, index: int) -> None:
    """One training image becomes black."""
    source = loop.parts.train_reader.source
    read = source.read
    object.__setattr__(source, "read", lambda i: torch.zeros_like(read(i)) if i == index else read(i))


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("index", [3, 77, 200])
@pytest.mark.usefixtures("tiny_models")
def test_a_loss_that_is_not_finite_ends_the_run_naming_its_step(make_loop, tmp_path, index, accumulation):
    """One black image, of which the model makes NaN. The same images are found whatever the number of processes."""
    given = {**TINY, "architecture": "tiny_models:AfraidOfTheDark", "batch_size": 32, "num_epochs": 1}
    loop = make_loop(tmp_path / "run", **given, gradient_accumulation=accumulation)
    darken(loop, index)
    seen = {plan.step: plan.global_indices.tolist() for plan in loop.parts.sampling.micro_batches(1, 0)}
    (step,) = (step for step, samples in seen.items() if index in samples)
    told = rf"at step {step + 1} \(epoch 1, learning rate 0\.05, training images {seen[step][0]}, .* and 20 more\)"
    with pytest.raises(Diverged, match=told) as caught:
        train(loop)
    assert caught.value.where == Divergence(step=step + 1, epoch=1, lr=0.05, samples=tuple(seen[step]))
    for world_size in (2, 4):
        sampling = replace(loop.parts.sampling, world_size=world_size, accumulation=2)
        plans = [list(sampling.micro_batches(1, rank)) for rank in range(world_size)]
        of_step = [plan.indices for rank in plans for plan in rank if plan.step == step]
        assert sorted(np.concatenate(of_step)) == sorted(seen[step])


def test_a_loss_that_is_not_finite_later_is_found_in_its_epoch(loop):
    compute = loop.objective.compute

    def explode(output, batch, *, is_shared):
        judged = compute(output, batch, is_shared=is_shared)
        return replace(judged, loss=judged.loss * (torch.inf if loop.progress.global_step == 5 else 1))

    loop.objective.compute = explode
    with pytest.raises(Diverged, match=r"not finite at step 6 \(epoch 2, learning rate 0\.001, ") as caught:
        train(loop)
    batches = list(loop.parts.sampling.micro_batches(2, 0))
    assert caught.value.where.samples == tuple(batches[5 - len(batches)].global_indices)
    assert loop.states.newest().progress.epoch == 1


def test_the_first_step_of_any_process_counts_also_when_another_has_looked_before(loop, monkeypatch):
    """Their gradients are one: what is not finite on one process is so on all, a step later."""
    monkeypatch.setattr(loop.reporter, "is_due", lambda: loop.progress.global_step == 3)
    wishes = []

    def now(stop, diverged_at):
        wishes.append(diverged_at)
        return Decision(diverged_at=min(step for step in (diverged_at, 2) if step is not None))

    loop.agreement.now = now
    loop.step.first_bad.note(torch.tensor(False), 3)
    with pytest.raises(Diverged, match="at step 2") as caught:
        train(loop)
    assert wishes == [3]
    assert caught.value.where.step == 2


def test_a_validation_loss_that_is_not_finite_has_no_images(loop):
    measure = loop.evaluator.measure
    loop.evaluator.measure = lambda *args: measure(*args) * torch.nan
    steps = loop.parts.sampling.steps_per_epoch
    told = rf"the validation loss was not finite after step {steps} \(epoch 1\); try a smaller learning rate"
    with pytest.raises(Diverged, match=told) as caught:
        train(loop)
    assert caught.value.where == Divergence(step=steps, epoch=1, lr=0.001)
    assert loop.states.newest() is None


def test_a_stop_during_validation_loses_nothing_of_the_epoch(loop):
    """The training of the epoch is over, its validation is not: it goes on with the validation."""
    whole = loop.validation.row

    def stopped_in_between(*args, **given):
        loop.stop.signal = 15
        return whole(*args, **given)

    loop.validation.row = stopped_in_between
    with pytest.raises(Stopped):
        train(loop)
    progress = loop.states.newest().progress
    assert (progress.epoch, progress.step) == (0, loop.parts.sampling.steps_per_epoch)
    assert loop.states.newest().trainer.sums[0, 2] == loop.parts.sampling.examples_per_epoch


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
    for row in records(loop):
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


def test_a_model_beats_while_it_is_compiled_for_training_and_for_validation(
    make_loop: Callable[..., TrainingLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step, of two micro-batches, and the first validation: they have no beats of their own."""
    loop = make_loop(tmp_path / "run", compile=False, gradient_accumulation=2)
    loop._to_compile = {"training", "validation"}
    beaten: list[tuple[int, str]] = []

    @contextmanager
    def alive(reporter: Reporter, what: str) -> Iterator[None]:
        beaten.append((loop.progress.global_step, what.split()[-1]))
        yield

    monkeypatch.setattr(Reporter, "alive", alive)
    train(loop)
    steps = loop.parts.sampling.steps_per_epoch
    assert beaten == [(0, "training"), (0, "training"), (steps, "validation")]
