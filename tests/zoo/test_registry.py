"""Torchvision's families, built with as many outputs as a data set has classes."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from accel_trainer.core.errors import UserError
from accel_trainer.training.objectives.base import auxiliary_logits, main_output
from accel_trainer.zoo import registry

# The smallest of each family, at an image size that it takes.
FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 64,
    "inception_v3": 299,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 32,
    "vit_b_32": 64,
    "wide_resnet50_2": 32,
}
# Of models of clips: image size and frames.
CLIP_FAMILIES = {
    "mc3_18": (32, 4),
    "mvit_v1_b": (224, 16),
    "r2plus1d_18": (32, 4),
    "r3d_18": (32, 4),
    "s3d": (224, 16),
    "swin3d_t": (64, 4),
}
AUXILIARY = {"googlenet": [0.3, 0.3], "inception_v3": [0.4]}


def build(name: str, args: dict[str, Any] | None = None, *, num_classes: int = 7, image_size: int = 64) -> nn.Module:
    """On the meta device where the family can be built there."""
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return registry.build(name, args or {}, num_classes=num_classes, image_size=image_size)


def test_every_architecture_of_torchvision_is_of_a_family_tested_here() -> None:
    families = {name.split("_")[0].rstrip("0123456789") for name in FAMILIES}
    families |= {name.split("_")[0].rstrip("0123456789") for name in CLIP_FAMILIES}
    assert {name.split("_")[0].rstrip("0123456789") for name in set(registry.names()) - set(registry.ZOO)} == families


@pytest.mark.parametrize("name", registry.ZOO)
def test_the_zoo_is_built_by_name_with_the_classes_of_the_data_set(name: str) -> None:
    assert name in registry.names()
    assert build(name)(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 7)
    with pytest.raises(UserError, match=rf"^architecture_args\.depth: {name} takes no such argument"):
        build(name, {"depth": 3})


def test_a_wrong_value_for_the_zoo_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"^architecture_args: cornet_rt: features: 65 is not a multiple of 32"):
        build("cornet_rt", {"features": [65, 128, 256, 512]})


def test_a_long_explanation_of_torch_is_reported_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^architecture_args: resnet50: ") as caught:
        build("resnet50", {"groups": 10**18})
    assert str(caught.value).isprintable()


def test_models_of_the_zoo_win_over_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ZOO, "resnet18", registry.ZOO["small_cnn"])
    assert type(build("resnet18")).__name__ == "SmallCNN"
    assert registry.names().count("resnet18") == 1


@pytest.mark.parametrize(("name", "size", "frames"), [(name, *sizes) for name, sizes in CLIP_FAMILIES.items()])
def test_models_of_clips_take_frames_before_channels(name: str, size: int, frames: int) -> None:
    with torch.device("meta"):
        model = registry.build(name, {}, num_classes=7, image_size=size)
        assert model(torch.empty(2, frames, 3, size, size)).shape == (2, 7)
    assert registry.takes_only_clips(name)
    assert not registry.takes_only_clips("resnet18")


def test_a_model_of_clips_sees_what_torchvisions_own_sees() -> None:
    ours = registry.build("r3d_18", {}, num_classes=5, image_size=16).eval()
    plain = models.get_model("r3d_18", num_classes=5).eval()
    plain.load_state_dict(ours.state_dict())
    clip = torch.randn(1, 3, 3, 16, 16)  # as many frames as channels: nothing would complain
    torch.testing.assert_close(ours(clip), plain(clip.transpose(1, 2)))
    assert not torch.allclose(ours(clip), plain(clip))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_output_layer_fits_the_classes_in_every_family(name: str) -> None:
    model = build(name, image_size=FAMILIES[name]).to("meta")
    images = torch.empty(2, 3, FAMILIES[name], FAMILIES[name], device="meta")
    output = model.train()(images)
    assert main_output(output).shape == (2, 7)
    auxiliary = auxiliary_logits(output)
    assert [(weight, logits.shape) for weight, logits in auxiliary] == [
        (weight, (2, 7)) for weight in AUXILIARY.get(name, [])
    ]
    assert model.eval()(images).shape == (2, 7)


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "squeezenet1_1", "densenet121", "vit_b_32", "swin_t", "inception_v3"]
)
def test_with_a_thousand_classes_a_model_has_the_published_number_of_parameters(name: str) -> None:
    published = models.get_model_weights(name).DEFAULT.meta["num_params"]
    model = build(name, num_classes=1000, image_size=224)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_arguments_of_a_job_reach_the_constructor() -> None:
    assert build("mobilenet_v2", {"dropout": 0.0}).classifier[0].p == 0.0
    assert build("squeezenet1_1", {"num_classes": 7}).classifier[1].out_channels == 7
    assert auxiliary_logits(
        build("googlenet", {"aux_logits": False}).train()(torch.empty(2, 3, 64, 64, device="meta"))
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet19", "architecture: no model 'resnet19' in the zoo or in torchvision; did you mean 'resnet1"),
        ("ResNet18", "architecture: no model 'ResNet18' in the zoo or in torchvision; did you mean 'resnet18'"),
        ("brain", "architecture: no model 'brain' in the zoo or in torchvision"),
        ("fcn_resnet50", "architecture: no model 'fcn_resnet50'"),  # segments
        ("quantized_resnet18", "architecture: no model 'quantized_resnet18'"),
        ("list_models", "architecture: no model 'list_models'"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        build(name)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("vgg11", {"drop_out": 0.1}, ["architecture_args.drop_out: vgg11 takes no such", "did you mean 'dropout'"]),
        ("resnet18", {"depth": 3}, ["architecture_args.depth", "it takes ", "zero_init_residual", "norm_layer"]),
        ("resnet18", {"layers": [1, 1, 1, 1]}, ["architecture_args.layers: resnet18 takes no such argument"]),
        ("resnet18", {"weights": "DEFAULT"}, ["architecture_args.weights"]),
        ("vit_b_32", {"patch_size": 8}, ["architecture_args.patch_size"]),
        ("vgg11", {"dropout": "much"}, ["architecture_args: vgg11: "]),
        ("vit_b_32", {"image_size": 65}, ["architecture_args: vit_b_32: "]),
        ("resnet18", {"num_classes": 1000}, ["architecture_args.num_classes: 1000, but the data set has 7 classes"]),
        pytest.param(
            "resnet50",
            {"groups": 0},
            ["architecture_args: resnet50: "],
            marks=pytest.mark.filterwarnings("ignore:Initializing zero-element tensors"),
        ),
        ("resnet50", {"width_per_group": -64}, ["architecture_args: resnet50: "]),
    ],
)
def test_a_wrong_argument_of_the_model_is_reported(name: str, args: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build(name, args)
    assert all(part in str(caught.value) for part in said), caught.value


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("swin_t", "stochastic_depth_prob", 0.1),
        ("maxvit_t", "stochastic_depth_prob", 0.1),
        ("convnext_tiny", "stochastic_depth_prob", 0.1),
        ("efficientnet_b0", "stochastic_depth_prob", 0.1),
        ("densenet121", "drop_rate", 0.1),
        ("resnet18", "zero_init_residual", True),
    ],
)
def test_an_argument_that_is_offered_is_taken(name: str, argument: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        build(name, {"no_such_argument": 1})
    offered = str(caught.value).partition("it takes ")[2].split(", ")
    refused = pytest.raises(UserError, match="takes no such argument")
    with nullcontext() if argument in offered else refused:
        build(name, {argument: value}, image_size=224)
