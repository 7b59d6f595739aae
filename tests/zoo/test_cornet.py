"""CORnet-Z, -R, -RT and -S: parameters, shapes, and what an area sees at which cycle."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from accel_trainer.zoo.cornet import MODELS, cornet_r, cornet_rt, cornet_s, cornet_z

UNROLLED: dict[str, Callable[..., nn.Module]] = {"cornet_r": cornet_r, "cornet_rt": cornet_rt}
AREAS = ("V1", "V2", "V4", "IT")
TINY = (32, 32, 32, 32)


def tiny(name: str, **args: Any) -> nn.Module:
    torch.manual_seed(1)
    return MODELS[name](num_classes=7, features=TINY, **args)


def with_random_norms(model: nn.Module) -> nn.Module:
    """Gains, biases and running statistics that are not 1 and 0: so a norm in the wrong place shows."""
    for norm in model.modules():
        if isinstance(norm, nn.GroupNorm | nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean = torch.randn(norm.num_features)
            norm.running_var = torch.rand(norm.num_features) + 0.5
    return model


def recorded(model: nn.Module, area: str) -> list[Tensor]:
    """Where a forward hook puts each output of an area."""
    outputs: list[Tensor] = []
    model.get_submodule(area).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    return outputs


@pytest.mark.parametrize(
    ("name", "published"),
    [("cornet_z", 2_071_656), ("cornet_r", 5_208_936), ("cornet_rt", 5_208_936), ("cornet_s", 53_416_616)],
)
def test_with_a_thousand_classes_a_model_has_the_published_number_of_parameters(name: str, published: int) -> None:
    with torch.device("meta"):
        model = MODELS[name]()
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert [child for child, _ in model.named_children()] == [*AREAS, "decoder"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(1, 1), (32, 32), (37, 50), (65, 64)])
def test_images_of_any_size_give_a_logit_per_class(name: str, size: tuple[int, int]) -> None:
    assert tiny(name).eval()(torch.randn(2, 3, *size)).shape == (2, 7)


@pytest.mark.parametrize("name", UNROLLED)
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_clips_give_logits_of_the_last_cycle_or_of_all(name: str, frames: int) -> None:
    clip = torch.randn(2, frames, 3, 37, 50)
    last = tiny(name)(clip)
    every = tiny(name, return_cycles="all")(clip)
    assert last.shape == (2, 7)
    assert every.shape == (2, 5, 7)
    torch.testing.assert_close(every[:, -1], last)


@pytest.mark.parametrize("name", UNROLLED)
def test_a_clip_has_no_more_frames_than_the_model_has_cycles(name: str) -> None:
    with pytest.raises(ValueError, match="a clip of 6 frames: the model runs for 5 cycles"):
        tiny(name)(torch.randn(1, 6, 3, 32, 32))
    with pytest.raises(ValueError, match=r"neither images \(batch, 3, height, width\) nor clips"):
        tiny(name)(torch.randn(3, 32, 32))


@pytest.mark.parametrize("name", UNROLLED)
def test_a_clip_of_equal_frames_is_the_image(name: str) -> None:
    model = tiny(name, return_cycles="all")
    images = torch.randn(2, 3, 40, 40)
    expected = model(images)
    torch.testing.assert_close(model(images.unsqueeze(1).expand(-1, 5, -1, -1, -1)), expected)
    torch.testing.assert_close(model(images.unsqueeze(1)), expected)


def explicit_states(weights: dict[str, Tensor], clip: Tensor, cycle: int, *, delay: int) -> list[Tensor]:
    """The states of all areas at a cycle, by the definition alone: each from scratch, recursively.

    `delay`: by how many cycles an area sees the area below later.
    """

    def state(area: int, t: int) -> Tensor:
        name = AREAS[area]

        def processed(part: str, values: Tensor, stride: int) -> Tensor:
            kernel, bias = weights[f"{name}.{part}.0.weight"], weights.get(f"{name}.{part}.0.bias")
            convolved = F.conv2d(values, kernel, bias, stride, padding=kernel.shape[-1] // 2)
            gain, offset = (weights[f"{name}.{part}.1.{which}"] for which in ("weight", "bias"))
            return F.group_norm(convolved, 32, gain, offset).clamp(min=0)

        if area == 0:
            seen = processed("input", clip[:, t], 4)
        elif t == 0:
            seen = torch.zeros_like(processed("input", state(area - 1, 0), 2))
        else:
            seen = processed("input", state(area - 1, t - delay), 2)
        return processed("recurrent", seen if t == 0 else seen + state(area, t - 1), 1)

    return [state(area, cycle) for area in range(4)]


@pytest.mark.parametrize(("name", "delay"), [("cornet_r", 0), ("cornet_rt", 1)])
@torch.no_grad()
def test_areas_get_input_from_the_area_below_of_the_right_cycle(name: str, delay: int) -> None:
    model = with_random_norms(tiny(name, num_cycles=4, return_cycles="all")).double()
    clip = torch.randn(2, 4, 3, 35, 42).double()
    recordings = [recorded(model, area) for area in AREAS]
    logits = model(clip)
    output = model.get_submodule("decoder.heads.0.0")
    for cycle in range(4):
        expected = explicit_states(model.state_dict(), clip, cycle, delay=delay)
        for recording, state in zip(recordings, expected, strict=True):
            torch.testing.assert_close(recording[cycle], state)
        torch.testing.assert_close(logits[:, cycle], output(expected[-1].mean((2, 3))))


@pytest.mark.parametrize("name", UNROLLED)
def test_in_the_first_cycle_areas_above_v1_are_silent(name: str) -> None:
    model = tiny(name)
    recordings = [recorded(model, area) for area in AREAS]
    model(torch.randn(2, 3, 100, 65))
    assert [recording[0].shape[-2:] for recording in recordings] == [(25, 17), (13, 9), (7, 5), (4, 3)]
    assert all(len(recording) == 5 for recording in recordings)
    assert [bool(recording[0].any()) for recording in recordings] == [True, False, False, False]


@pytest.mark.parametrize(("name", "delay"), [("cornet_r", 0), ("cornet_rt", 3)])
def test_a_frame_is_read_when_it_has_reached_it(name: str, delay: int) -> None:
    model = tiny(name, return_cycles="all").double()
    clip = torch.randn(1, 5, 3, 64, 64).double()
    logits = model(clip)
    for frame in range(5):
        changed = clip.clone()
        changed[:, frame] += torch.randn(3, 64, 64)
        depends = (model(changed) - logits).abs().amax(-1)[0] > 1e-9
        first = max(frame + delay, 1)
        assert depends.tolist() == [cycle >= first for cycle in range(5)], frame


def explicit_bottlenecks(weights: dict[str, Tensor], area: str, cycles: int, below: Tensor) -> Tensor:
    def norm(values: Tensor, name: str) -> Tensor:
        mean, variance, gain, offset = (
            weights[f"{area}.{name}.{part}"].reshape(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (values - mean) / (variance + 1e-5).sqrt() * gain + offset

    def one_by_one(values: Tensor, name: str) -> Tensor:
        return torch.einsum("bihw,oi->bohw", values, weights[f"{area}.{name}.weight"][:, :, 0, 0])

    state = one_by_one(below, "input")
    for cycle in range(cycles):
        hidden = norm(one_by_one(state, "expand"), f"expand_norms.{cycle}").clamp(min=0)
        hidden = F.conv2d(hidden, weights[f"{area}.spatial.weight"], padding=1)
        if cycle == 0:
            hidden = hidden[:, :, ::2, ::2]
            state = norm(one_by_one(state, "skip.0")[:, :, ::2, ::2], "skip.1")
        hidden = norm(hidden, f"spatial_norms.{cycle}").clamp(min=0)
        state = (state + norm(one_by_one(hidden, "reduce"), f"reduce_norms.{cycle}")).clamp(min=0)
    return state


@torch.no_grad()
def test_cornet_s_repeats_one_bottleneck_with_separate_norms_for_each_time() -> None:
    model = with_random_norms(cornet_s(num_classes=7, features=(8, 12, 16, 20))).double().eval()
    recordings = {area: recorded(model, area) for area in AREAS}
    logits = model(torch.randn(2, 3, 61, 90).double())
    expected = recordings["V1"][0]
    assert expected.shape == (2, 8, 16, 23)
    for area, cycles in (("V2", 2), ("V4", 4), ("IT", 2)):
        expected = explicit_bottlenecks(model.state_dict(), area, cycles, expected)
        torch.testing.assert_close(recordings[area][0], expected)
    torch.testing.assert_close(logits, model.get_submodule("decoder.heads.0.0")(expected.mean((2, 3))))


def test_v1_of_cornet_s_is_two_convolutions_with_pooling_between() -> None:
    kinds = [type(layer).__name__ for layer in cornet_s(features=(8, 8, 8, 8)).get_submodule("V1").children()]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Conv2d", "BatchNorm2d", "ReLU"]


def test_a_recurrence_of_cornet_s_more_adds_only_batch_norms() -> None:
    def count(*cycles: int) -> int:
        return sum(parameter.numel() for parameter in tiny("cornet_s", num_cycles=cycles).parameters())

    for cycles in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
        assert count(*cycles) - count(1, 1, 1) == 2 * (4 * 32 + 4 * 32 + 32)
    model = tiny("cornet_s").train()
    model(torch.randn(2, 3, 48, 48))
    seen = [name for name, norm in model.named_modules() if isinstance(norm, nn.BatchNorm2d)]
    assert len(seen) == 2 + 3 + 3 * (2 + 4 + 2)
    statistics = dict(model.named_buffers())
    assert {int(statistics[f"{name}.num_batches_tracked"]) for name in seen} == {1}
    second, third = (statistics[f"V4.spatial_norms.{cycle}.running_var"] for cycle in (1, 2))
    assert not torch.allclose(second, third)


def test_an_area_of_cornet_z_is_a_convolution_relu_and_max_pooling() -> None:
    model = tiny("cornet_z")
    images = torch.randn(2, 3, 45, 38)
    weights = model.state_dict()
    expected = images
    for area, stride in zip(AREAS, (2, 1, 1, 1), strict=True):
        kernel, bias = weights[f"{area}.0.weight"], weights[f"{area}.0.bias"]
        expected = F.conv2d(expected, kernel, bias.clone().fill_(0.1), stride, padding=kernel.shape[-1] // 2)
        expected = F.max_pool2d(expected.clamp(min=0), 3, 2, 1)
        nn.init.constant_(model.get_parameter(f"{area}.0.bias"), 0.1)
    expected = expected.mean((2, 3)) @ weights["decoder.heads.0.0.weight"].T
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("name", UNROLLED)
def test_r_and_rt_start_with_the_weights_that_torch_gives_layers(name: str) -> None:
    """Linear layers and convolutions: uniform within 1 / sqrt(inputs of a unit), weights and biases alike."""
    torch.manual_seed(2)
    model = MODELS[name](features=(64, 64, 64, 64))
    seen = 0
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            seen += 1
            bound = layer.weight[0].numel() ** -0.5
            assert 0.99 * bound < layer.weight.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
            if layer.bias is not None:
                assert 0.8 * bound < layer.bias.abs().max() <= bound
        if isinstance(layer, nn.GroupNorm):
            assert layer.weight.eq(1).all()
            assert not layer.bias.any()
    assert seen == 9


def test_cornet_z_starts_with_xavier_uniform_weights_and_no_bias() -> None:
    torch.manual_seed(2)
    for layer in cornet_z(features=(64, 64, 64, 64)).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = layer.weight[0, 0].numel()
            bound = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            assert 0.99 * bound < layer.weight.abs().max() <= bound
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
            assert layer.bias is None or not layer.bias.any()


def test_cornet_s_starts_with_weights_of_normal_distribution() -> None:
    torch.manual_seed(2)
    for layer in cornet_s(features=(32, 32, 32, 32)).modules():
        if isinstance(layer, nn.Conv2d):
            expected = (2 / (layer.weight[0, 0].numel() * layer.out_channels)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert layer.weight.abs().max() > 2.5 * expected  # not uniform
            assert layer.bias is None
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.eq(1).all()
            assert not layer.bias.any()


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_survives_a_file_of_safetensors(name: str, tmp_path: Path) -> None:
    model = with_random_norms(tiny(name)).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with torch.device("meta"):
        other = tiny(name).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True)
    images = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(other(images), model(images))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("args", [{}, {"head_depth": 2, "num_heads": 2}])
def test_gradients_reach_every_parameter_of_the_model(name: str, args: dict[str, Any]) -> None:
    model = tiny(name, **args).train()
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
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
    images = torch.randn(2, 3, 64, 64)
    model = tiny(name, head_depth=3, head_units=11, num_heads=4).eval()
    shapes = [tuple(value.shape) for key, value in model.state_dict().items() if key.startswith("decoder.heads.3")]
    assert shapes == [(11, 32), (11,), (11, 11), (11,), (7, 11), (7,)]
    logits = model(images)
    assert logits.shape == (2, 1, 4, 7)
    assert not torch.allclose(logits[:, 0, 0], logits[:, 0, 1])
    deep = tiny(name, head_depth=2)
    assert deep.state_dict()["decoder.heads.0.0.weight"].shape == (32, 32)
    if name in UNROLLED:
        assert tiny(name, num_heads=4, return_cycles="all")(images).shape == (2, 5, 4, 7)


@pytest.mark.parametrize("name", MODELS)
def test_kernels_have_the_sizes_asked_for(name: str) -> None:
    model = tiny(name, kernel_sizes=[3, 1, 5, 7]).eval()
    assert model(torch.randn(2, 3, 33, 40)).shape == (2, 7)
    part = {"cornet_z": "0", "cornet_s": "spatial"}.get(name, "input.0")
    for area, size in zip(AREAS[1:], (1, 5, 7), strict=True):
        assert model.get_parameter(f"{area}.{part}.weight").shape[-1] == size


@pytest.mark.parametrize("name", MODELS)
def test_every_argument_is_listed_with_its_default(name: str) -> None:
    for argument, parameter in inspect.signature(MODELS[name]).parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        default = parameter.default
        told = str(list(default)) if isinstance(default, tuple) else "null" if default is None else f"{default}"
        told = f'"{told}"' if isinstance(default, str) else told
        assert f"\n{argument} ({told}" in (inspect.getdoc(MODELS[name]) or ""), argument


@pytest.mark.parametrize(
    ("build", "args", "said"),
    [
        (cornet_z, {"kernel_sizes": [7, 4, 3, 3]}, "kernel_sizes: 4 is even; kernels here have a center, so take 5"),
        (cornet_z, {"kernel_sizes": [7, 3, 3]}, r"kernel_sizes: \[7, 3, 3\] is not a list of 4 numbers, for V1, V2"),
        (cornet_z, {"features": 64}, "features: 64 is not a list of 4 numbers"),
        (cornet_z, {"features": [64, 0, 64, 64]}, "features: 0 is not a whole number of at least 1"),
        (cornet_z, {"num_classes": 0}, "num_classes: 0 is not a whole number of at least 1"),
        (cornet_z, {"num_heads": 1.5}, "num_heads: 1.5 is not a whole number"),
        (cornet_z, {"num_heads": True}, "num_heads: True is not a whole number"),
        (cornet_z, {"head_depth": 0}, "head_depth: 0 is not"),
        (cornet_s, {"head_units": 100}, "head_units: 100, but with head_depth 1 there is no hidden layer"),
        (cornet_r, {"features": [64, 100, 64, 64]}, "features: 100 is not a multiple of 32, the groups of GroupNorm"),
        (cornet_r, {"return_cycles": "first"}, "return_cycles: 'first' is not one of 'last', 'all'"),
        (cornet_r, {"num_cycles": 1}, "num_cycles: 1, but what V1 sees reaches IT only in cycle 2"),
        (cornet_rt, {"num_cycles": 3}, "num_cycles: 3, but what V1 sees reaches IT only in cycle 4"),
        (cornet_rt, {"num_cycles": "5"}, "num_cycles: '5' is not a whole number"),
        (cornet_s, {"num_cycles": 5}, "num_cycles: 5 is not a list of 3 numbers, for V2, V4, IT"),
    ],
)
def test_a_wrong_argument_of_the_model_is_reported(
    build: Callable[..., nn.Module], args: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said), torch.device("meta"):
        build(**args)
