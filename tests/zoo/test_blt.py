"""B, BL, BT and BLT: parameters, shapes, and which activations of which cycle a layer gets."""

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from accel_trainer.zoo.blt import MODELS

TINY = {"num_classes": 7, "features": (4, 6, 8, 5), "kernel_sizes": (5, 3, 3, 1)}
RECURRENT = ("blt_bl", "blt_bt", "blt_blt")
CONNECTIONS = {"blt_b": "", "blt_bl": "lateral", "blt_bt": "top_down", "blt_blt": "lateral, top_down"}


def tiny(name: str, **args: Any) -> nn.Module:
    torch.manual_seed(1)
    cycles = {} if name == "blt_b" else {"num_cycles": 4}
    return MODELS[name](**{**TINY, **cycles, **args})


def with_random_norms(model: nn.Module) -> nn.Module:
    """Gains, biases and running statistics that are not 1 and 0: so a norm of the wrong cycle shows."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            norm.running_mean = torch.randn(norm.num_features)
            norm.running_var = torch.rand(norm.num_features) + 0.5
    return model


@pytest.mark.parametrize(
    ("name", "args", "published"),
    [
        ("blt_b", {}, 11_037_768),
        ("blt_bl", {}, 28_870_920),
        # Those above and the top-down connections: the products of neighbours' features and of the kernels' areas.
        ("blt_bt", {}, 11_037_768 + 7 * 8_512 + 26_431_488),
        ("blt_blt", {}, 28_870_920 + 26_431_488),
        ("blt_b", {"num_cycles": 8, "return_cycles": "all"}, 11_037_768 + 7 * 8_512),
    ],
)
def test_with_a_thousand_classes_a_model_has_the_published_number_of_parameters(
    name: str, args: dict[str, Any], published: int
) -> None:
    features, kernels = (96, 128, 192, 256, 512, 1024, 2048), (7, 5, 3, 3, 3, 3, 1)
    pairs = zip(features, features[1:], kernels, strict=False)
    assert sum(below * above * kernel**2 for below, above, kernel in pairs) == 26_431_488
    with torch.device("meta"):
        model = MODELS[name](**args)
        assert model(torch.empty(2, 3, 128, 128)).shape[-1] == 1000
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert [child for child, _ in model.named_children()] == [*(f"layer{n}" for n in range(1, 8)), "decoder"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (37, 50), (31, 8)])
def test_images_of_any_size_give_a_logit_per_class(name: str, size: tuple[int, int]) -> None:
    assert tiny(name)(torch.randn(2, 3, *size)).shape == (2, 7)


@pytest.mark.parametrize("name", MODELS)
def test_an_image_that_is_too_small_is_reported(name: str) -> None:
    said = "images of 16x7: 4 layers with pooling between them need at least 8x8"
    with pytest.raises(ValueError, match=said):
        tiny(name)(torch.randn(2, 3, 16, 7))


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("frames", [1, 3, 4])
def test_clips_give_logits_of_the_last_cycle_or_of_all(name: str, frames: int) -> None:
    clip = torch.randn(2, frames, 3, 16, 21)
    last = tiny(name)(clip)
    every = tiny(name, return_cycles="all")(clip)
    assert last.shape == (2, 7)
    assert every.shape == (2, 4, 7)
    torch.testing.assert_close(every[:, -1], last)


def test_the_bottom_up_network_takes_clips_too() -> None:
    clip = torch.randn(2, 3, 3, 16, 16)
    assert tiny("blt_b", num_cycles=3, return_cycles="all")(clip).shape == (2, 3, 7)
    assert tiny("blt_b")(clip[:, :1]).shape == (2, 7)
    with pytest.raises(ValueError, match="a clip of 3 frames: the model runs for 1 cycles"):
        tiny("blt_b")(clip)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_clip_of_equal_frames_is_the_image(name: str) -> None:
    model = tiny(name, return_cycles="all").eval()
    images = torch.randn(2, 3, 20, 20)
    expected = model(images)
    torch.testing.assert_close(model(images.unsqueeze(1).expand(-1, 4, -1, -1, -1)), expected)
    torch.testing.assert_close(model(images.unsqueeze(1)), expected)


def top_down(above: Tensor, kernel: Tensor, like: Tensor) -> Tensor:
    """A transposed convolution by its definition: the gradient of the strided convolution that it transposes."""
    even = like.new_zeros(len(like), kernel.shape[1], 2 * above.shape[2], 2 * above.shape[3], requires_grad=True)
    with torch.enable_grad():
        forward = F.conv2d(even, kernel, stride=2, padding=kernel.shape[-1] // 2)
        (transposed,) = torch.autograd.grad(forward, even, above)
    result = torch.zeros_like(like)
    result[:, :, : even.shape[2], : even.shape[3]] = transposed
    return result


def explicit_activations(weights: dict[str, Tensor], clip: Tensor, connections: str, cycle: int) -> list[Tensor]:
    """The activations of all four layers at a cycle, by the definition alone: each from scratch, recursively."""

    def activations(layer: int, t: int) -> Tensor:
        name = f"layer{layer}"
        below = clip[:, t] if layer == 1 else F.max_pool2d(activations(layer - 1, t), 2)
        bottom_up = weights[f"{name}.bottom_up.weight"]
        total = F.conv2d(below, bottom_up, padding=bottom_up.shape[-1] // 2)
        if "lateral" in connections and t > 0:
            lateral = weights[f"{name}.lateral.weight"]
            total = total + F.conv2d(activations(layer, t - 1), lateral, padding=lateral.shape[-1] // 2)
        if "top_down" in connections and t > 0 and layer < 4:
            total = total + top_down(activations(layer + 1, t - 1), weights[f"{name}.top_down.weight"], total)
        mean, variance, gain, offset = (
            weights[f"{name}.norms.{t}.{part}"].reshape(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((total - mean) / (variance + 1e-5).sqrt() * gain + offset).clamp(min=0)

    return [activations(layer, cycle) for layer in (1, 2, 3, 4)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("readout", ["instantaneous", "cumulative"])
@torch.no_grad()
def test_bottom_up_input_is_of_this_cycle_and_other_input_of_the_last(name: str, readout: str) -> None:
    model = with_random_norms(tiny(name, num_cycles=3, return_cycles="all", readout=readout)).double().eval()
    clip = torch.randn(2, 3, 3, 13, 18).double()
    recorded: list[list[Tensor]] = [[], [], [], []]
    for layer, outputs in enumerate(recorded, start=1):
        model.get_submodule(f"layer{layer}").register_forward_hook(
            lambda _, inputs, output, o=outputs: o.append(output)
        )
    logits = model(clip)
    output = model.get_submodule("decoder.heads.0.0")
    total = torch.zeros(2, 7).double()
    for cycle in range(3):
        expected = explicit_activations(model.state_dict(), clip, CONNECTIONS[name], cycle)
        for outputs, activations in zip(recorded, expected, strict=True):
            torch.testing.assert_close(outputs[cycle], activations)
        of_cycle = output(expected[-1].mean((2, 3)))
        total = total + of_cycle
        torch.testing.assert_close(logits[:, cycle], total if readout == "cumulative" else of_cycle)


@pytest.mark.parametrize("name", RECURRENT)
def test_the_last_logits_of_the_cumulative_readout_are_the_sum_of_all(name: str) -> None:
    images = torch.randn(2, 3, 16, 16)
    each = tiny(name, return_cycles="all").eval()(images)
    torch.testing.assert_close(tiny(name, readout="cumulative").eval()(images), each.sum(1))


def test_what_an_image_drives_in_the_first_layer_is_computed_once() -> None:
    model = tiny("blt_bl")
    calls: list[None] = []
    model.get_submodule("layer1.bottom_up").register_forward_hook(lambda module, inputs, output: calls.append(None))
    model(torch.randn(2, 3, 16, 16))
    assert len(calls) == 1
    model(torch.randn(2, 2, 3, 16, 16))
    assert len(calls) == 3


def test_each_cycle_has_batch_norms_of_its_own_with_statistics_of_their_own() -> None:
    model = tiny("blt_blt").train()
    model(torch.randn(4, 3, 16, 16))
    statistics = [dict(model.get_submodule(f"layer2.norms.{cycle}").named_buffers()) for cycle in range(4)]
    assert [int(of_cycle["num_batches_tracked"]) for of_cycle in statistics] == [1, 1, 1, 1]
    for one, next_one in pairwise(statistics):
        assert not torch.allclose(one["running_var"], next_one["running_var"])


@pytest.mark.parametrize("name", MODELS)
def test_weights_start_xavier_uniform_and_biases_at_0(name: str) -> None:
    torch.manual_seed(2)
    for layer in MODELS[name](features=(48, 64, 80), kernel_sizes=(7, 3, 1)).modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            area = layer.weight[0, 0].numel()
            bound = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            assert 0.99 * bound < layer.weight.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
            assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("name", MODELS)
def test_only_the_readout_has_biases_and_the_top_no_feedback(name: str) -> None:
    kinds = {key.split(".", 1)[1] for key, _ in tiny(name).named_parameters() if key.startswith("layer4")}
    connections = {"bottom_up.weight"} | ({"lateral.weight"} if "lateral" in CONNECTIONS[name] else set())
    assert {kind for kind in kinds if not kind.startswith("norms")} == connections
    lower = {key.split(".", 1)[1] for key, _ in tiny(name).named_parameters() if key.startswith("layer3")}
    top_down = {"top_down.weight"} if "top_down" in CONNECTIONS[name] else set()
    assert {kind for kind in lower if not kind.startswith("norms")} == connections | top_down


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_survives_a_file_of_safetensors(name: str, tmp_path: Path) -> None:
    model = with_random_norms(tiny(name)).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with torch.device("meta"):
        other = tiny(name).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    images = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(other(images), model(images))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        *((name, {}) for name in MODELS),
        *((name, {"num_cycles": 2}) for name in RECURRENT),
        ("blt_blt", {"head_depth": 2, "num_heads": 2}),
        ("blt_b", {"num_cycles": 3, "readout": "cumulative"}),
        ("blt_b", {"num_cycles": 3, "return_cycles": "all"}),
    ],
)
def test_gradients_reach_every_parameter_of_the_model(name: str, args: dict[str, Any]) -> None:
    model = tiny(name, **args).train()
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        assert value.grad.any(), parameter


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_gives_the_same_weights(name: str) -> None:
    first, second = tiny(name).state_dict(), tiny(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_heads_can_be_deeper_wider_and_several(name: str) -> None:
    images = torch.randn(2, 3, 16, 16)
    model = tiny(name, head_depth=2, head_units=11, num_heads=3)
    assert model.state_dict()["decoder.heads.2.0.weight"].shape == (11, 5)
    assert model(images).shape == (2, 1, 3, 7)
    every = tiny(name, num_cycles=4, num_heads=3, return_cycles="all")(images)
    assert every.shape == (2, 4, 3, 7)


@pytest.mark.parametrize("name", MODELS)
def test_every_argument_is_listed_with_its_default(name: str) -> None:
    for argument, parameter in inspect.signature(MODELS[name]).parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        default = parameter.default
        told = str(list(default)) if isinstance(default, tuple) else "null" if default is None else f"{default}"
        told = f'"{told}"' if isinstance(default, str) else told
        assert f"\n{argument} ({told}" in (inspect.getdoc(MODELS[name]) or ""), argument


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("blt_bl", {"kernel_sizes": [7, 5, 3, 3, 3, 2, 1]}, "kernel_sizes: 2 is even"),
        ("blt_bl", {"kernel_sizes": [7, 5]}, "kernel_sizes: .* is not a list of 7 numbers, for layer1, layer2"),
        ("blt_bl", {"features": []}, r"features: \[\] is not a list of numbers, one for each layer"),
        ("blt_bl", {"features": 96}, "features: 96 is not a list of numbers"),
        ("blt_bl", {"features": ["a"], "kernel_sizes": [1]}, "features: 'a' is not a whole number of at least 1"),
        ("blt_bt", {"features": [8], "kernel_sizes": [3]}, "features: one layer alone has no top-down connections"),
        ("blt_bl", {"num_cycles": 0}, "num_cycles: 0 is not a whole number of at least 1"),
        ("blt_bl", {"num_cycles": 1}, "num_cycles: 1, but lateral and top-down connections act one cycle late"),
        ("blt_b", {"num_cycles": 8}, "num_cycles: 8, but without lateral and top-down connections the last cycle"),
        ("blt_bl", {"return_cycles": "none"}, "return_cycles: 'none' is not one of 'last', 'all'"),
        ("blt_bl", {"readout": "mean"}, "readout: 'mean' is not one of 'instantaneous', 'cumulative'"),
        ("blt_b", {"head_units": 5}, "head_units: 5, but with head_depth 1"),
    ],
)
def test_a_wrong_argument_of_the_model_is_reported(name: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said), torch.device("meta"):
        MODELS[name](**args)
