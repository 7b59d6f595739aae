"""A schedule by step in the loop itself: each optimizer step has the rate that torch's own scheduler gives it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from loops import TINY, records, taken_up, train, train_until
from torch import Tensor
from torch.optim import lr_scheduler

from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.resume import resume
from accel_trainer.training.state.starting_point import FromState, FromWeights

MakeLoop = Callable[..., TrainingLoop]

pytestmark = pytest.mark.usefixtures("tiny_models")

EPOCHS, PER_EPOCH = 3, 4
STEPS = EPOCHS * PER_EPOCH
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0}
BY_STEP: dict[str, Any] = {
    **TINY,
    "architecture": "tiny_models:Cycles",
    "batch_size": 64,
    "num_epochs": EPOCHS,
    "optimizer_args": SGD,
    "schedule_by": "step",
    "scheduler": "OneCycleLR",
    "scheduler_args": {"max_lr": 0.1},
    "warmup_scheduler": "LinearLR",
    "warmup_scheduler_args": {"start_factor": 0.1, "total_iters": 5},
}


def torchs_rates(skipped: list[int] | None = None) -> list[float]:
    """Those of BY_STEP, as torch and Accelerate document it, for each step."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], **SGD)
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    main = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS - 5)
    scheduler = lr_scheduler.SequentialLR(optimizer, [warmup, main], [5])
    rates = []
    for number in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        if number not in (skipped or []):
            optimizer.step()
            scheduler.step()
    return rates


def watched(loop: TrainingLoop) -> list[float]:
    """The rate of each optimizer step of a loop, as it is taken or would have been."""
    rates: list[float] = []
    step = loop.optimizer.step

    def noting(*args: Any, **keywords: Any) -> Any:
        if loop.accelerator.sync_gradients:
            rates.append(loop.optimizer.param_groups[0]["lr"])
        return step(*args, **keywords)

    loop.optimizer.step = noting
    return rates


@pytest.mark.parametrize("accumulation", [1, 4])
def test_each_step_of_a_training_has_torchs_rate_whatever_is_accumulated(
    make_loop: MakeLoop, tmp_path: Path, accumulation: int
) -> None:
    loop = make_loop(tmp_path / "run", **BY_STEP, gradient_accumulation=accumulation)
    assert loop.parts.sampling.steps_per_epoch == PER_EPOCH
    rates = watched(loop)
    train(loop)
    assert rates == torchs_rates()
    last_of_epochs = rates[PER_EPOCH - 1 :: PER_EPOCH]
    assert [row["lr"] for row in records(loop) if row["split"] == "train"] == last_of_epochs
    assert [row["lr"] for row in records(loop) if row["split"] == "val"] == last_of_epochs


def rates_in_pieces(begun: Callable[[], TrainingLoop]) -> list[float]:
    """Of each step of a training that is stopped after every one. begun: gives a loop that goes on with it."""
    rates: list[float] = []
    look, is_over = 1, False
    while not is_over:
        loop = begun()
        before, of_this = loop.progress.global_step, watched(loop)
        is_over = train_until(loop, look)
        rates += of_this
        look = 1 if loop.progress.global_step > before else look + 1
    return rates


def test_a_training_that_is_stopped_after_every_step_has_the_same_rates(make_loop: MakeLoop, tmp_path: Path) -> None:
    assert rates_in_pieces(lambda: taken_up(make_loop(tmp_path / "run", **BY_STEP))) == torchs_rates()


SKIPPED = [0, 1, 3, 4, 9]


@pytest.mark.parametrize("decides", ["on the host", "on the device"])
def test_a_step_that_the_loss_scaler_skips_does_not_count(
    make_loop: MakeLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decides: str
) -> None:
    """With torch's own GradScaler, and with gradients that are too large for it. A fused optimizer decides itself; its
    run is also stopped after every step, skipped ones too."""
    prepare = Accelerator.prepare

    def with_scaler(self: Accelerator, *parts: Any, **options: Any) -> Any:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        return prepare(self, *parts, **options)

    monkeypatch.setattr(Accelerator, "prepare", with_scaler)
    is_fused = decides == "on the device"
    given = {**BY_STEP, "optimizer_args": {**SGD, "fused": is_fused}, "ema": 0.9}

    def begun() -> TrainingLoop:
        loop = taken_up(make_loop(tmp_path / "run", **given))
        assert loop.optimizer.scaler is not None

        def overflow(gradient: Tensor) -> Tensor:
            return gradient * (torch.inf if loop.progress.global_step in SKIPPED else 1)

        loop.plain_model.hidden.weight.register_hook(overflow)
        return loop

    if is_fused:
        assert rates_in_pieces(begun) == torchs_rates(SKIPPED)
        return
    loop = begun()
    before = [weight.clone() for weight in loop.plain_model.parameters()]
    rates = watched(loop)
    assert not train_until(loop, 2)
    assert loop.progress.global_step == 2
    assert all(map(torch.equal, before, loop.plain_model.parameters()))
    train_until(loop, 1e9)
    assert rates == torchs_rates(SKIPPED)


def test_a_changed_job_resumes_at_its_own_step_of_the_schedule(make_loop: MakeLoop, tmp_path: Path) -> None:
    """With twice the steps in an epoch; and where only weights of an epoch are kept."""
    old = train(make_loop(tmp_path / "run", **{**BY_STEP, "batch_size": 128, "num_epochs": 1}))
    state = old.states.newest()
    assert state is not None
    changes = {"batch_size": (128, 64), "num_epochs": (1, EPOCHS)}
    for start in (FromState(state, changes=changes), FromWeights(state.model, 1)):
        loop = make_loop(tmp_path / type(start).__name__, **BY_STEP)
        resume(loop, start)
        rates = watched(loop)
        train(loop)
        assert rates == torchs_rates()[PER_EPOCH:]


def test_by_epoch_the_rates_within_an_epoch_are_all_the_same(make_loop: MakeLoop, tmp_path: Path) -> None:
    by_epoch = {**BY_STEP, "schedule_by": "epoch", "warmup_scheduler_args": {"start_factor": 0.1, "total_iters": 1}}
    loop = make_loop(tmp_path / "run", **by_epoch)
    rates = watched(loop)
    train(loop)
    assert rates[::PER_EPOCH] == rates[PER_EPOCH - 1 :: PER_EPOCH]
    assert len(set(rates)) == EPOCHS
