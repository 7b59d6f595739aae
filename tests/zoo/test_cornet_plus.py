"""CORnet-S+ and CORnet-S custom: parameters, names, start weights and outputs."""

import inspect
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accel_trainer.zoo.cornet_plus import MODELS, cornet_s_custom, cornet_s_plus, pool_to_grid

AREAS = ("V1", "V2", "V4", "IT")
TINY: dict[str, Any] = {"F": (8, 12, 16, 20), "num_classes": 7}


def plus(**args: Any) -> nn.Module:
    torch.manual_seed(1)
    return cornet_s_plus(**{**TINY, **args}).eval()


@pytest.mark.parametrize(
    ("name", "args", "published"),
    [
        ("cornet_s_plus", {}, 71_138_684),
        ("cornet_s_plus", {"head_depth": 1, "head_width": 1}, 55_923_048),
        ("cornet_s_custom", {}, 54_011_688),
    ],
)
def test_a_variant_of_cornet_s_has_the_number_of_parameters_of_its_authors(
    name: str, args: dict[str, Any], published: int
) -> None:
    with torch.device("meta"):
        model = MODELS[name](**args)
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert [child for child, _ in model.named_children()] == [*AREAS, "decoder"]


def test_weights_of_the_variants_have_the_names_of_their_authors() -> None:
    names = {name.rpartition(".")[0] for name in plus(out_channels=2).state_dict()}
    block = ["conv_input", "skip", "norm_skip", "conv1", "conv2", "conv3"]
    expected = {"V1.cycle0.conv1", "V1.cycle0.norm1"}
    for area, cycles in zip(("V1.CORblock", "V2", "V4", "IT"), (1, 2, 4, 2), strict=True):
        norms = [f"norm{number}_{cycle}" for number in (1, 2, 3) for cycle in range(cycles)]
        expected |= {f"{area}.{part}" for part in (*block, *norms)}
    expected |= {f"decoder.linear_{head}_{layer}" for head in (0, 1) for layer in (0, 1)}
    assert names == expected


def explicit_logits(weights: dict[str, Tensor], images: Tensor, recurrences: tuple[int, ...], grid: int) -> Tensor:
    """The model by its description alone, of its weights."""

    def conv(values: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return F.conv2d(values, kernel, stride=stride, padding=(kernel.shape[-1] - 1) // 2)

    def norm(values: Tensor, name: str) -> Tensor:
        mean, variance, gain, offset = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(values, mean, variance, gain, offset)

    state = F.max_pool2d(norm(conv(images, "V1.cycle0.conv1", 2), "V1.cycle0.norm1").clamp(min=0), 3, 2, 1)
    for area, count in zip(("V1.CORblock", "V2", "V4", "IT"), recurrences, strict=True):
        state = conv(state, f"{area}.conv_input")
        for cycle in range(count):
            stride = 2 if cycle == 0 else 1
            beside = norm(conv(state, f"{area}.skip", 2), f"{area}.norm_skip") if cycle == 0 else state
            hidden = norm(conv(state, f"{area}.conv1"), f"{area}.norm1_{cycle}").clamp(min=0)
            hidden = norm(conv(hidden, f"{area}.conv2", stride), f"{area}.norm2_{cycle}").clamp(min=0)
            state = (norm(conv(hidden, f"{area}.conv3"), f"{area}.norm3_{cycle}") + beside).clamp(min=0)
    pooled = F.adaptive_avg_pool2d(state, grid).flatten(1)
    heads = []
    for head in range(2):
        first, last = (
            [weights[f"decoder.linear_{head}_{layer}.{part}"] for part in ("weight", "bias")] for layer in (0, 1)
        )
        heads.append(F.linear(F.linear(pooled, *first).clamp(min=0), *last))
    return torch.stack(heads, dim=2)


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 96), (130, 75)])
def test_logits_are_those_of_the_description_with_heads_on_the_last_axis(size: tuple[int, int]) -> None:
    given = {"R": [2, 1, 3, 2], "K": [3, 5, 3, 1], "S": 2, "out_channels": 2, "head_depth": 2, "head_width": 3}
    model = plus(**given).double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean, norm.running_var = torch.randn(norm.num_features), torch.rand(norm.num_features) + 0.5
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    images = torch.randn(2, 3, *size).double()
    model = model.double()
    logits = model(images)
    assert logits.shape == (2, 7, 2)
    torch.testing.assert_close(logits, explicit_logits(model.state_dict(), images, (2, 1, 3, 2), 3))


@pytest.mark.parametrize("grid", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 5), (2, 9)])
def test_pooling_to_a_grid_is_torchs_adaptive_average(size: tuple[int, int], grid: int) -> None:
    values = torch.randn(2, 3, *size).double()
    torch.testing.assert_close(pool_to_grid(values, grid), F.adaptive_avg_pool2d(values, grid))


@pytest.mark.parametrize(("depth", "width", "classes"), [(1, 1, 7), (2, 3, 10), (3, 2, 1000), (4, 1, 33)])
def test_widths_of_a_head_fall_in_equal_steps(depth: int, width: int, classes: int) -> None:
    with torch.device("meta"):
        model = cornet_s_custom(num_classes=classes, head_depth=depth, head_width=width)
    expected = [int(value) for value in np.linspace(512 * width**2, classes, depth + 1)]
    layers = [model.get_submodule(f"decoder.linear_0_{layer}") for layer in range(depth)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(pairwise(expected))


def test_convolutions_and_heads_start_from_normal_distributions() -> None:
    torch.manual_seed(2)
    for layer in cornet_s_plus(F=(32, 32, 32, 64), num_classes=50).modules():
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (layer.weight[0, 0].numel() * layer.out_channels)) ** 0.5
        elif isinstance(layer, nn.Linear):
            expected = (2 / (layer.in_features * layer.out_features)) ** 0.5
            assert not layer.bias.any()
        else:
            continue
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
        assert layer.weight.abs().max() > 2.5 * expected  # not uniform


def test_gradients_reach_every_parameter_of_several_heads() -> None:
    model = plus(out_channels=2).train()
    model(torch.randn(2, 3, 96, 96)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_every_argument_of_a_variant_is_listed_with_its_default(name: str) -> None:
    for argument, parameter in inspect.signature(MODELS[name]).parameters.items():
        told = str(list(parameter.default)) if isinstance(parameter.default, tuple) else str(parameter.default)
        assert f"\n{argument} ({told}" in (inspect.getdoc(MODELS[name]) or ""), argument


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"R": [1, 2, 4]}, r"R: \[1, 2, 4\] is not a list of 4 numbers, for V1, V2, V4, IT"),
        ({"R": [0, 2, 4, 2]}, "R: 0 is not a whole number of at least 1"),
        ({"K": [3, 4, 3, 3]}, "K: 4 is even; kernels here have a center, so take 5"),
        ({"F": 64}, "F: 64 is not a list of 4 numbers"),
        ({"S": 0}, "S: 0 is not a whole number"),
        ({"out_channels": 0}, "out_channels: 0 is not"),
        ({"head_depth": 0}, "head_depth: 0 is not"),
        ({"head_width": "3"}, "head_width: '3' is not"),
        ({"num_classes": 0}, "num_classes: 0 is not"),
    ],
)
def test_a_wrong_argument_of_a_variant_is_reported(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said), torch.device("meta"):
        cornet_s_plus(**args)
