"""How much of a model must come from the file, what may not stay random, and position embeddings of another size."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import said_by
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from accel_trainer.training.pretrained.transfer import plan_transfer, transfer


def net(num_classes: int = 3, width: int = 4) -> nn.Sequential:
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, width, 3))
    model.add_module("norm", nn.BatchNorm2d(width))
    model.add_module("fc", nn.Linear(width, num_classes))
    return model


def without(weights: dict[str, Tensor], *starts: str) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith(starts)}


# -- how much -----------------------------------------------------------------------------------------------------


def test_parameters_are_counted_and_not_tensors() -> None:
    """Of a resnet18 with another stem and head, many tensors fit; of its parameters it is what they hold."""
    model, source = models.resnet18(num_classes=3), models.resnet18(num_classes=9)
    weights = {name: v for name, v in source.state_dict().items() if ".conv" not in name}
    parameters = {name: p.numel() for name, p in model.named_parameters()}
    expected = sum(parameters[name] for name in weights if name in parameters and not name.startswith("fc"))
    result = transfer(model, weights)
    assert (result.parameters_loaded, result.parameters) == (expected, sum(parameters.values()))
    assert result.share == expected / sum(parameters.values()) < 0.1
    assert len(result.taken) > len(model.state_dict()) / 2
    said = said_by(partial(transfer, least=0.5), models.resnet18(num_classes=3), weights)
    assert said.startswith(f"only {expected:,} of the {sum(parameters.values()):,} parameters of ResNet (")
    assert "would be loaded, less than 50%; not in the file are layer1.0.conv1, layer1.0.conv2, " in said
    assert "of another shape are fc.weight (9x512 in the file, 3x512 in the model), fc.bias (9 in" in said
    assert said.endswith("or set min_loaded_fraction where so little is wanted")
    transfer(models.resnet18(num_classes=3), weights, least=expected / sum(parameters.values()))


@pytest.mark.parametrize(("classes", "least", "is_refused"), [(3, 1.0, False), (4, 0.9, True), (4, 0.8, False)])
def test_as_much_as_is_asked_for_must_fit(classes: int, least: float, is_refused: bool) -> None:
    weights = net(classes).state_dict()  # of 135 parameters those of fc are 15
    weights = weights if classes == 3 else without(weights, "norm.weight", "fc")
    for load in (transfer, plan_transfer):
        if is_refused:
            said = said_by(partial(load, least=least), net(), weights)
            assert said.startswith("only 116 of the 135 parameters of Sequential")
        else:
            load(net(), weights, least=least)


def test_a_file_with_a_prefix_of_its_own_is_told_what_would_fit() -> None:
    """One layer has the model's name by chance."""
    source = net().state_dict()
    weights = {**{f"student.{name}": value for name, value in source.items()}, "norm.weight": torch.ones(4)}
    said = said_by(partial(transfer, least=0.5), net(), weights)
    assert "only in the file are student; without 'student.' before the names enough would fit" in said


# -- frozen -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [transfer, plan_transfer])
def test_a_frozen_module_is_loaded_whole_or_refused(load: Callable[..., object]) -> None:
    weights = net(num_classes=5).state_dict()
    load(net(), weights, frozen=["conv", "norm"])
    said = said_by(partial(load, frozen=["conv", "fc"]), net(), weights)
    assert said.startswith(
        "fc is to be frozen, but would be left with random numbers in fc.weight (5x4 in the file, 3x4"
    )
    for missing in ("norm.running_var", "norm.bias"):
        said = said_by(partial(load, frozen=["norm"]), net(), without(weights, missing))
        assert f"random numbers in {missing} (not in the file); use weights that have all of it" in said
    load(net(), without(weights, "norm.running_var"), frozen=["conv"])
    # Files from before BatchNorm counted have all that matters.
    load(net(), without(weights, "norm.num_batches_tracked"), frozen=["norm"])


def test_a_frozen_module_is_not_one_whose_name_begins_alike() -> None:
    model = nn.Sequential()
    for name in ("layer1", "layer10"):
        model.add_module(name, nn.Linear(2, 2))
    transfer(model, {"layer1.weight": torch.ones(2, 2), "layer1.bias": torch.ones(2)}, frozen=["layer1"])
    assert "layer10 is to be frozen" in said_by(
        partial(transfer, frozen=["layer10"]), model, {"layer1.weight": torch.ones(2, 2)}
    )


# -- position embeddings ------------------------------------------------------------------------------------------


def vit(image_size: int, num_classes: int = 3) -> models.VisionTransformer:
    return models.VisionTransformer(image_size, 16, 1, 2, 8, 16, num_classes=num_classes)


@pytest.mark.parametrize(("there", "here"), [(32, 96), (96, 32), (64, 80), (16, 48)])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_position_embeddings_are_interpolated_as_torchvision_does(there: int, here: int, prefix: str) -> None:
    torch.manual_seed(0)
    source, model, reference = vit(there), vit(here), vit(here)
    nn.init.normal_(source.encoder.pos_embedding)
    result = transfer(model, {prefix + name: value for name, value in source.state_dict().items()}, least=1.0)
    reference.load_state_dict(interpolate_embeddings(here, 16, source.state_dict()))
    assert all(torch.equal(value, reference.state_dict()[name]) for name, value in model.state_dict().items())
    assert list(result.interpolated) == ["encoder.pos_embedding"]
    assert (result.share, result.skipped) == (1.0, {})
    with torch.device("meta"):
        paper = vit(here)
    assert plan_transfer(paper, {prefix + name: value for name, value in source.state_dict().items()}) == result
    assert any("interpolated for another image size: encoder.pos_embedding" in line for line in result.lines())


@pytest.mark.parametrize("shape", [(1, 6, 8), (2, 5, 8), (1, 5, 4), (1, 1, 8), (1, 0, 8), (5, 8)])
def test_what_is_no_square_of_positions_is_not_interpolated(shape: tuple[int, ...]) -> None:
    weights = {**vit(96).state_dict(), "encoder.pos_embedding": torch.ones(shape)}
    assert list(transfer(vit(96), weights).skipped) == ["encoder.pos_embedding"]


def test_a_transformer_is_frozen_with_interpolated_positions() -> None:
    transfer(vit(64), vit(32).state_dict(), frozen=["encoder", "conv_proj"])
