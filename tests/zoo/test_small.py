"""The small network for tiny images."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from accel_trainer.zoo.small import MODELS, small_cnn


def tiny(**args: Any) -> nn.Module:
    torch.manual_seed(1)
    return small_cnn(**{"num_classes": 7, "features": [4, 6], "kernel_sizes": [5, 3], **args})


def test_the_number_of_parameters_equals_the_documented_one() -> None:
    with torch.device("meta"):
        model = MODELS["small_cnn"](num_classes=10)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 10)
        assert small_cnn()(torch.empty(2, 3, 32, 32)).shape == (2, 1000)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 9 * (3 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 129 * 10
    assert f"{count:,} parameters with 10 classes" in (small_cnn.__doc__ or "")
    assert [child for child, _ in model.named_children()] == ["layer1", "layer2", "layer3", "decoder"]


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 13), (32, 32)])
def test_images_of_any_size_give_a_logit_per_class(size: tuple[int, int]) -> None:
    assert tiny().eval()(torch.randn(2, 3, *size)).shape == (2, 7)


def test_a_layer_is_a_convolution_batch_norm_and_relu() -> None:
    model = tiny().train()
    weights = model.state_dict()
    images = torch.randn(3, 3, 9, 8)
    expected = images
    for layer, stride in (("layer1", 1), ("layer2", 2)):
        kernel = weights[f"{layer}.0.weight"]
        expected = F.conv2d(expected, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, variance = expected.mean((0, 2, 3), keepdim=True), expected.var((0, 2, 3), keepdim=True, correction=0)
        expected = ((expected - mean) / (variance + 1e-5).sqrt()).clamp(min=0)
    output = model.get_submodule("decoder.heads.0.0")
    torch.testing.assert_close(model(images), output(expected.mean((2, 3))), rtol=1e-4, atol=1e-5)


def test_convolutions_start_with_the_variance_of_he_et_al() -> None:
    torch.manual_seed(2)
    for layer in small_cnn().modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.05)


def test_the_small_network_learns_to_distinguish_stripes() -> None:
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    stripes = (torch.arange(8) % 4 < 2).float()
    images = torch.stack([stripes.expand(3, 8, 8), stripes.expand(3, 8, 8).transpose(1, 2)])[labels]
    images = images + 0.3 * torch.randn(64, 3, 8, 8)
    model = tiny(num_classes=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(1) == labels).float().mean() > 0.95


def test_heads_can_be_deeper_wider_and_several() -> None:
    model = tiny(head_depth=3, head_units=11, num_heads=4)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 1, 4, 7)
    assert model.state_dict()["decoder.heads.3.2.weight"].shape == (11, 11)


def test_a_state_dict_survives_a_file_of_safetensors(tmp_path: Path) -> None:
    model = tiny()
    model(torch.randn(4, 3, 8, 8))  # running statistics that are not 0 and 1
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with torch.device("meta"):
        other = tiny()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(other.eval()(images), model.eval()(images))


@pytest.mark.parametrize("args", [{}, {"head_depth": 2, "num_heads": 2}])
def test_gradients_reach_every_parameter_of_the_model(args: dict[str, Any]) -> None:
    model = tiny(**args)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.any(), parameter


def test_a_seed_gives_the_same_weights() -> None:
    first, second = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_every_argument_is_listed_with_its_default() -> None:
    for argument, parameter in inspect.signature(small_cnn).parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        default = parameter.default
        told = str(list(default)) if isinstance(default, tuple) else "null" if default is None else f"{default}"
        assert f"\n{argument} ({told}" in (inspect.getdoc(small_cnn) or ""), argument


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"kernel_sizes": [3, 2]}, "kernel_sizes: 2 is even; kernels here have a center, so take 3"),
        ({"kernel_sizes": [3]}, r"kernel_sizes: \[3\] is not a list of 2 numbers, for layer1, layer2"),
        ({"features": []}, r"features: \[\] is not a list of numbers, one for each layer"),
        ({"features": [4, -1]}, "features: -1 is not a whole number of at least 1"),
        ({"num_classes": "ten"}, "num_classes: 'ten' is not a whole number of at least 1"),
        ({"head_units": 5}, "head_units: 5, but with head_depth 1 there is no hidden layer"),
        ({"num_heads": 0}, "num_heads: 0 is not a whole number of at least 1"),
    ],
)
def test_a_wrong_argument_of_the_model_is_reported(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(**args)
