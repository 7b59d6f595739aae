"""Fused optimizers whose first steps a loss scaler skips go on as if these had never been."""

from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from accel_trainer.training.optim.skipped_steps import forget_skipped_first_step

NUM_TAKEN = 4
FUSED: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "maximize": True}),
    ("SGD", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.01}),
    ("AdamW", {}),
    ("Adagrad", {"lr_decay": 0.1}),
]


@pytest.fixture(autouse=True)
def dirty_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has initialized is not finite."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **given: empty_like(*args, **given).fill_(torch.nan))


def trained(name: str, args: dict[str, Any], skipped: Collection[int] = (), reloaded: bool = False) -> list[Tensor]:
    """Weights after some steps that were taken, in two groups; of all steps, those with these numbers were not."""
    draws = torch.Generator().manual_seed(7)
    weights = [torch.randn(5, 3, generator=draws).requires_grad_() for _ in range(3)]
    gradients = [[torch.randn(5, 3, generator=draws) for _ in weights] for _ in range(NUM_TAKEN)]

    def made() -> Optimizer:
        groups = [{"params": weights[:2]}, {"params": weights[2:], "lr": 0.02}]
        optimizer: Optimizer = getattr(torch.optim, name)(groups, lr=0.1, fused=True, **args)
        forget_skipped_first_step(optimizer)
        return optimizer

    optimizer, scaler = made(), torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=100)
    for number in range(NUM_TAKEN + len(skipped)):
        is_taken = number not in skipped
        of_step = gradients[number - sum(other < number for other in skipped)] if is_taken else gradients[0]
        scaler.scale(torch.zeros(()))
        for weight, gradient in zip(weights, of_step, strict=True):
            weight.grad = gradient * (scaler.get_scale() if is_taken else torch.inf)
        scaler.step(optimizer)
        scaler.update()
        if reloaded:
            state, optimizer = optimizer.state_dict(), made()
            optimizer.load_state_dict(state)
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize(("name", "args"), FUSED)
@pytest.mark.parametrize("reloaded", [False, True], ids=["", "resumed after each"])
def test_a_fused_optimizer_forgets_the_steps_that_were_skipped(name: str, args: dict[str, Any], reloaded: bool) -> None:
    expected = trained(name, args)
    for skipped in ([0], [0, 1, 2], [1], [0, 2, 3]):
        weights = trained(name, args, skipped, reloaded)
        assert all(map(torch.equal, expected, weights)), skipped


def test_every_fused_optimizer_that_unscales_gradients_itself_is_tried() -> None:
    def is_fused(kind: type[Optimizer]) -> bool:
        try:
            return hasattr(kind([torch.zeros(1, requires_grad=True)], lr=0.1, fused=True), "_step_supports_amp_scaling")
        except TypeError:
            return False

    kinds = [kind for kind in vars(torch.optim).values() if isinstance(kind, type) and issubclass(kind, Optimizer)]
    assert {kind.__name__ for kind in kinds if is_fused(kind)} == {name for name, _ in FUSED}
