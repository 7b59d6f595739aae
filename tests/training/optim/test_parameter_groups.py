"""Layers are found in any model; what is trained, decayed and at which rate follows from them."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.training.optim.optimizer import make_optimizer
from accel_trainer.training.optim.parameter_groups import layers
from accel_trainer.zoo import registry

MakeJob = Callable[..., Job]


def on_paper(architecture: str, num_classes: int = 1000) -> nn.Module:
    with torch.device("meta"):
        return registry.build(architecture, {}, num_classes=num_classes, image_size=224)


# What the names of each layer's parameters begin with.
RESNET18 = [("conv1.", "bn1."), "layer1.", "layer2.", "layer3.", "layer4.0.", "layer4.1.", "fc."]
VIT_B_16 = [
    ("class_token", "encoder.pos_embedding", "conv_proj."),
    *(f"encoder.layers.encoder_layer_{n}." for n in range(11)),
    ("encoder.layers.encoder_layer_11.", "encoder.ln."),
    "heads.",
]
CONVNEXT_TINY = [*(f"features.{n}." for n in range(8)), "classifier."]
CORNET_RT = ["V1.", "V2.", "V4.", "IT.input.", "IT.recurrent.", "decoder."]
BLT_BL = [*(f"layer{n}." for n in range(1, 8)), "decoder."]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("resnet18", RESNET18),
        ("vit_b_16", VIT_B_16),
        ("convnext_tiny", CONVNEXT_TINY),
        ("cornet_rt", CORNET_RT),
        ("blt_bl", BLT_BL),
    ],
)
def test_the_layers_of_a_model_are_found_from_input_to_output(
    architecture: str, expected: list[str | tuple[str, ...]]
) -> None:
    found = layers(on_paper(architecture))
    assert len(found) == len(expected)
    for names, beginnings in zip(found, expected, strict=True):
        assert names
        assert all(name.startswith(beginnings) for name in names)


@pytest.mark.parametrize("architecture", [*registry.ZOO, "swin_t", "densenet121", "googlenet", "vgg11_bn", "r3d_18"])
def test_every_parameter_is_in_one_layer(architecture: str) -> None:
    model = on_paper(architecture, num_classes=10)
    found = layers(model)
    assert len(found) >= 2
    assert sorted(name for names in found for name in names) == sorted(name for name, _ in model.named_parameters())


def test_parameters_before_a_first_matrix_and_shared_ones_join_its_layer() -> None:
    model = nn.Sequential(nn.LayerNorm([3, 8]), nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8))
    model[3].weight = model[1].weight
    assert layers(model) == [["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "3.bias", "4.weight", "4.bias"]]


def test_a_model_without_parts_is_one_layer_and_one_without_parameters_has_none() -> None:
    assert layers(nn.Linear(3, 3)) == [["weight", "bias"]]
    assert layers(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())) == [["0.weight", "0.bias"]]
    assert layers(nn.Flatten()) == []


def test_one_group_in_model_order_loads_states_of_torchs_optimizers(
    make_job: MakeJob,
) -> None:
    model = on_paper("resnet18")
    optimizer = make_optimizer(make_job(), model)
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
    theirs = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    assert optimizer.state_dict() == theirs.state_dict()


def test_each_layers_rate_is_the_same_share_of_that_of_the_layer_above(make_job: MakeJob) -> None:
    model = on_paper("vit_b_16")
    optimizer = make_optimizer(make_job(optimizer="AdamW", layer_decay=0.75), model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [1e-3 * 0.75 ** (13 - n) for n in range(14)]
    )
    assert [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups] == layers(model)


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_without_decay_of_norms_and_biases_only_the_other_parameters_shrink(
    make_job: MakeJob, layer_decay: float | None
) -> None:
    """Without a gradient AdamW moves parameters by the decay alone: each by the factor 1 - lr * weight_decay."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.LayerNorm([2, 6, 6]), nn.Flatten(), nn.Linear(72, 5)
    )
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    args = {"optimizer": "AdamW", "optimizer_args": {"lr": 0.1, "weight_decay": 0.5}}
    make_optimizer(make_job(**args, decay_norm_and_bias=False, layer_decay=layer_decay), model).step()
    now = {name: parameter.mean().item() for name, parameter in model.named_parameters()}
    shrunk = {"0.weight": 1 - 0.1 * (layer_decay or 1) * 0.5, "5.weight": 1 - 0.1 * 0.5}
    assert now == pytest.approx({**dict.fromkeys(now, 1.0), **shrunk})


def test_weight_decay_of_a_resnet_is_on_its_convolutions_and_its_output_layer(make_job: MakeJob) -> None:
    model = on_paper("resnet18")
    decayed, others = make_optimizer(make_job(decay_norm_and_bias=False), model).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (1e-4, 0)
    assert {p.ndim for p in decayed["params"]} == {4, 2}
    assert (len(decayed["params"]), len(others["params"])) == (20 + 1, 2 * 20 + 1)


def test_parameters_that_are_frozen_are_left_out(make_job: MakeJob) -> None:
    model = on_paper("resnet18")
    model.requires_grad_(False)
    model.get_submodule("layer4").requires_grad_(True)
    model.get_submodule("fc").requires_grad_(True)
    trained = sum(p.requires_grad for p in model.parameters())
    for given in ({}, {"layer_decay": 0.5}, {"layer_decay": 0.5, "decay_norm_and_bias": False}):
        optimizer = make_optimizer(make_job(**given), model)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == trained
        assert all(group["params"] and p.requires_grad for group in optimizer.param_groups for p in group["params"])


def test_there_must_be_something_to_train_and_for_layer_decay_two_layers(make_job: MakeJob) -> None:
    with pytest.raises(UserError, match=r"^architecture: squeezenet1_1 has no parameter left to train"):
        make_optimizer(make_job(), on_paper("resnet18").requires_grad_(False))
    with pytest.raises(UserError, match=r"^layer_decay: squeezenet1_1 has no more than one layer with weights"):
        make_optimizer(make_job(layer_decay=0.9), nn.Sequential(nn.Flatten(), nn.Linear(3, 3)))
