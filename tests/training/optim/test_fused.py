"""Optimizers in one kernel."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from loops import TINY, assert_same, outcome, taken_up, train, train_until
from torch import nn

from accel_trainer.training.optim.optimizer import prefer_fused

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ARGS: dict[str, dict[str, Any]] = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 0.01}, "AdamW": {"lr": 0.01}}


def optimizer_of(name: str, parameter: nn.Parameter, **more: Any) -> torch.optim.Optimizer:
    return getattr(torch.optim, name)([parameter], **{**ARGS.get(name, {}), **more})


def weight(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Parameter:
    generator = torch.Generator().manual_seed(0)
    return nn.Parameter(torch.randn(4, 3, 3, 3, generator=generator).contiguous(memory_format=memory_format))


def step(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, times: int) -> None:
    generator = torch.Generator().manual_seed(times)
    for _ in range(times):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "given", "device", "expected"),
    [
        *((name, {}, CPU, True) for name in ARGS),
        ("AdamW", {}, CUDA, None),  # as torch has it
        ("AdamW", {"fused": True}, CUDA, True),
        ("AdamW", {"fused": False}, CPU, False),
        ("AdamW", {"foreach": False}, CPU, None),
        ("RMSprop", {}, CPU, "no such option"),
    ],
)
def test_each_optimizer_is_fused_exactly_where_torch_can_do_it(make_job, name, given, device, expected):
    optimizer = optimizer_of(name, weight(), **given)
    prefer_fused(make_job(optimizer=name, optimizer_args=given), optimizer, device)
    assert optimizer.param_groups[0].get("fused", "no such option") == expected


@pytest.mark.parametrize("parameter", [torch.zeros(3, dtype=torch.complex64), torch.zeros(4, 6)[:, ::2]])
def test_parameters_that_are_no_plain_rows_of_floats_are_left_to_torch(make_job, parameter):
    optimizer = optimizer_of("SGD", nn.Parameter(parameter))
    prefer_fused(make_job(), optimizer, CPU)
    assert not optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize("name", ARGS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_was_kept_in_another_order_in_memory_is_of_the_same_numbers(make_job, name, memory_format):
    """As when a job goes on with channels_last, or without: against torch's optimizers without such kernels."""
    before, plain, ours = weight(), weight(memory_format), weight(memory_format)
    kept = optimizer_of(name, before)
    step(kept, before, 2)
    for parameter, is_ours in ((plain, False), (ours, True)):
        optimizer = optimizer_of(name, parameter, foreach=None if is_ours else False)
        if is_ours:
            prefer_fused(make_job(optimizer=name, optimizer_args=ARGS[name]), optimizer, CPU)
        optimizer.load_state_dict(deepcopy(kept.state_dict()))
        assert bool(optimizer.param_groups[0]["fused"]) == is_ours  # and not as in the state
        with torch.no_grad():
            parameter.copy_(before)
        step(optimizer, parameter, 3)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_run_that_is_taken_up_is_the_run(make_loop, tmp_path, optimizer):
    given = {**TINY, "optimizer": optimizer, "optimizer_args": {"lr": 0.01}, "channels_last": True, "ema": 0.9}
    whole = train(make_loop(tmp_path / "whole", **given))
    assert whole.optimizer.param_groups[0]["fused"]
    assert not train_until(make_loop(tmp_path / "run", **given), look=3)
    assert_same(outcome(train(taken_up(make_loop(tmp_path / "run", **given)))), outcome(whole))
