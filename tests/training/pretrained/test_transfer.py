"""Starting from trained weights: what is loaded, what is said, and what stays as it is."""

import json
import math
from collections.abc import Sequence

import pytest
import torch
from helpers import said_by
from tiny_models import History
from torch import Tensor, nn
from torchvision import models

from accel_trainer.core.errors import UserError
from accel_trainer.training.optim.parameter_groups import freeze
from accel_trainer.training.pretrained.fit import Shapes
from accel_trainer.training.pretrained.transfer import collapse_modules, plan_transfer, transfer


def copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def net(num_classes: int = 3, width: int = 4) -> nn.Sequential:
    """A tiny model with BatchNorm whose weights have no two values alike."""
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, width, 3))
    model.add_module("norm", nn.BatchNorm2d(width))
    model.add_module("fc", nn.Linear(width, num_classes))
    for value in model.state_dict().values():
        value.copy_(torch.randn(value.shape) * 10)
    return model


# -- loading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small"])
def test_all_that_load_state_dict_would_load_is_loaded(architecture: str) -> None:
    source, model, reference = (models.get_model(architecture, num_classes=4) for _ in range(3))
    for value in source.state_dict().values():
        value.copy_(torch.rand(value.shape) * 10)
    result = transfer(model, source.state_dict())
    reference.load_state_dict(source.state_dict())
    assert all(torch.equal(value, reference.state_dict()[name]) for name, value in model.state_dict().items())
    assert list(result.loaded) == list(reference.state_dict())
    assert not any([result.reshaped, result.skipped, result.unused, result.missing])


def test_an_output_layer_of_another_size_stays_as_initialised() -> None:
    source, model = net(num_classes=1000), net(num_classes=3)
    before = copy(model)
    result = transfer(model, source.state_dict())
    assert result.skipped == {"fc.weight": Shapes((1000, 4), (3, 4)), "fc.bias": Shapes((1000,), (3,))}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("fc.") else source.state_dict()[name])


def test_what_only_one_of_them_has_is_listed() -> None:
    model, weights = net(), net().state_dict()
    before = copy(model)
    extra = {"head.weight": torch.ones(1), "head.bias": torch.ones(1)}
    result = transfer(model, {**{n: v for n, v in weights.items() if n != "norm.running_var"}, **extra})
    assert result.missing == ("norm.running_var",)
    assert result.unused == ("head.weight", "head.bias")
    assert torch.equal(model.state_dict()["norm.running_var"], before["norm.running_var"])


def remembering(seen: Sequence[int] = ()) -> nn.Sequential:
    """A model with a module that adds to its state."""
    model = net()
    model.add_module("history", History())
    model.history.seen = list(seen)
    return model


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.encoder.", "encoder_q."])
def test_what_modules_add_to_their_state_is_loaded_by_the_prefix_of_the_others(prefix: str) -> None:
    source, model = remembering([3, 1]), remembering()
    weights = {prefix + name: value for name, value in source.state_dict().items()}
    planned = plan_transfer(remembering(), weights)
    result = transfer(model, weights)
    assert result == planned
    assert model.history.seen == [3, 1]
    assert list(result.loaded) == list(model.state_dict())
    assert not [*result.missing, *result.unused]
    wrapped = nn.ModuleDict({"backbone": remembering()})
    transfer(wrapped, source.state_dict())
    assert wrapped["backbone"].history.seen == [3, 1]


def test_what_modules_add_to_their_state_is_listed_where_only_one_of_them_has_it() -> None:
    model = remembering([7])
    result = transfer(model, net().state_dict(), frozen=["history"])
    assert result.missing == ("history._extra_state",)
    assert model.history.seen == [7]
    assert "  left as initialized, not in the file: history" in list(result.lines())
    result = transfer(net(), {f"backbone.{name}": value for name, value in remembering([7]).state_dict().items()})
    assert result.unused == ("backbone.history._extra_state",)


def test_an_extra_state_that_a_module_does_not_take_is_named() -> None:
    weights = {**remembering().state_dict(), "history._extra_state": torch.ones(2, 2)}
    with pytest.raises(UserError, match=r"history\._extra_state cannot be loaded: "):
        transfer(remembering(), weights)


def test_a_linear_layer_and_a_1x1_convolution_take_each_others_weights() -> None:
    convolution, linear = models.squeezenet1_1(num_classes=7), models.squeezenet1_1(num_classes=7)
    linear.classifier[1] = nn.Linear(512, 7)
    features = torch.rand(2, 512, 1, 1)
    for source, model in ((convolution, linear), (linear, convolution)):
        nn.init.normal_(source.classifier[1].weight)
        result = transfer(model, copy(source))
        assert list(result.reshaped) == ["classifier.1.weight"]
        assert {result.reshaped["classifier.1.weight"].file, result.reshaped["classifier.1.weight"].model} == {
            (7, 512),
            (7, 512, 1, 1),
        }
        expected = convolution.classifier[1](features).flatten(1)
        torch.testing.assert_close(linear.classifier[1](features.flatten(1)), expected, rtol=1e-5, atol=1e-4)


def test_the_first_linear_layer_after_flattening_is_a_convolution_of_the_whole_map() -> None:
    linear, convolution = nn.Linear(5 * 7 * 7, 6), nn.Conv2d(5, 6, 7)
    assert "weight" in transfer(convolution, linear.state_dict()).reshaped
    images = torch.rand(2, 5, 7, 7)
    torch.testing.assert_close(convolution(images).flatten(1), linear(images.flatten(1)))


def test_a_transposed_matrix_has_as_many_numbers_and_is_not_taken() -> None:
    result = transfer(nn.Linear(3, 6), {"weight": torch.ones(3, 6), "bias": torch.ones(6)})
    assert result.skipped == {"weight": Shapes((3, 6), (6, 3))}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_numbers_are_cast_to_the_models_precision(dtype: torch.dtype) -> None:
    model, source = net(), net().to(dtype)
    transfer(model, source.state_dict())
    for name, value in model.state_dict().items():
        expected = source.state_dict()[name]
        assert value.dtype == (torch.int64 if "num_batches" in name else torch.float32)
        assert torch.equal(value, expected.to(value.dtype))


def test_a_model_that_calls_a_part_of_it_module_gets_its_weights() -> None:
    model = nn.Sequential()
    model.add_module("module", net())
    source = net()
    transfer(model, source.state_dict())
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.module.state_dict().items())


def test_where_nothing_fits_it_is_an_error() -> None:
    said = said_by(transfer, net(), {"conv1.weight": torch.ones(4, 3, 3, 3)})
    assert said.startswith("nothing fits Sequential: there are conv1.weight, the model has conv.weight, conv.bias")
    # Every BatchNorm has a counter, of one shape.
    assert "of another shape are conv.weight (9x3x3x3 in the file, 4x3x3x3 in the model), conv.bias" in said_by(
        transfer, net(), net(5, width=9).state_dict()
    )


def test_integer_buffers_do_not_count_as_weights() -> None:
    weights = {name: value.to(torch.int8) for name, value in net().state_dict().items()}
    assert "quantized" in said_by(transfer, net(), weights)


def test_what_fits_is_known_on_paper() -> None:
    with torch.device("meta"):
        paper = net(num_classes=5)
    weights = {**net(num_classes=3).state_dict(), "more": torch.ones(1)}
    assert plan_transfer(paper, weights) == transfer(net(num_classes=5), weights)


# -- older names of torchvision's -------------------------------------------------------------------------------


def test_a_vision_transformer_with_older_names_is_loaded_as_it_loads_itself() -> None:
    def small() -> models.VisionTransformer:
        return models.VisionTransformer(
            image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3
        )

    older = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): torch.rand(value.shape)
        for name, value in small().state_dict().items()
    }
    model, reference = small(), small()
    reference.load_state_dict(older)
    result = transfer(model, older)
    assert not result.missing
    assert all(torch.equal(value, reference.state_dict()[name]) for name, value in model.state_dict().items())


# -- what is said -----------------------------------------------------------------------------------------------


def test_the_report_is_json_and_a_few_lines() -> None:
    weights = {name: v for name, v in net(num_classes=9).state_dict().items() if not name.startswith("norm")}
    extra = {f"old.{number}.weight": torch.ones(1) for number in range(30)}
    result = transfer(net(), {**weights, **extra, "projector.weight": torch.ones(1)})
    written = json.loads(result.as_json())
    assert written["loaded"] == ["conv.weight", "conv.bias"]
    assert written["skipped"]["fc.weight"] == {"file": [9, 4], "model": [3, 4]}
    assert written["missing"] == [name for name in net().state_dict() if name.startswith("norm")]
    assert len(written["unused"]) == 31
    assert list(result.lines()) == [
        "starting from : 2 of the model's 9 tensors loaded, 112 of its 135 parameters (82.96%)",
        "  left as initialized, the file has another shape: fc.weight (9x4 there, 3x4 here), fc.bias (9 there, 3 here)",
        "  left as initialized, not in the file: norm",
        "  in the file, but not in the model: old, projector",
    ]


def test_whole_modules_are_named_instead_of_what_is_in_them() -> None:
    among = ["w", "a.w", "a.b.w", "a.b.c.v", "d.w", "d.e.w"]
    assert collapse_modules(["w", "a.b.w", "a.b.c.v", "d.e.w"], among) == ["w", "a.b", "d.e"]
    assert collapse_modules(among[:4], among) == ["w", "a"]
    assert collapse_modules([], among) == []


# -- freezing ---------------------------------------------------------------------------------------------------


def test_named_modules_are_frozen_and_the_others_are_not() -> None:
    model = models.resnet18(num_classes=3)
    frozen = freeze(model, ["conv1", "layer1.0", "relu"])
    assert frozen == [model.conv1, model.layer1[0], model.relu]
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(("conv1.", "layer1.0."))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["layer5"], "ResNet has no module 'layer5'; did you mean 'layer"),
        (["zzz"], "ResNet has no module 'zzz'; its own are conv1, bn1, relu, maxpool, layer1"),
        ([""], "ResNet has no module ''"),
        (["layer1.0.conv1.weight"], "'layer1.0.conv1.weight' is a parameter, not a module; freeze its module"),
        (["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"], "everything is frozen, nothing is left"),
    ],
)
def test_what_cannot_be_frozen_is_refused(names: list[str], said: str) -> None:
    with torch.device("meta"):
        model = models.resnet18()
    assert said_by(freeze, model, names).startswith(f"finetune_args.freeze_modules: {said}")


# -- weights made to do harm, or by a run that diverged -----------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300], ids=["NaN", "infinity", "too large for float32"])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    weights = {name: tensor.double() for name, tensor in copy(net()).items()}
    weights["fc.bias"][1] = value
    assert said_by(transfer, net(), weights).startswith(
        "fc.bias has values that are not finite, as a run that diverged"
    )


@pytest.mark.parametrize("kind", ["meta", "float4"])
def test_weights_without_numbers_that_a_model_could_have_are_refused(kind: str) -> None:
    if kind == "meta":
        value = torch.empty(3, device="meta")
    elif hasattr(torch, "float4_e2m1fn_x2"):
        value = torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    else:
        pytest.skip("this torch has no such type")
    assert said_by(transfer, net(), {**copy(net()), "fc.bias": value}).startswith("fc.bias cannot be loaded: ")


def test_a_tensor_of_more_numbers_than_it_has_bytes_is_of_another_shape() -> None:
    """A few bytes in a file can claim to be a million times a million numbers."""
    vast = torch.zeros(1).expand(10**6, 10**6)
    assert set(transfer(net(), {**copy(net()), "fc.weight": vast}).skipped) == {"fc.weight"}
