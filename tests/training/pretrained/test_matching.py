"""Weights under other names: prefixes of wrappers, and the layouts of CORnet's authors, with plain models of theirs."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import said_by
from torch import Tensor, nn
from torchvision import models

from accel_trainer.training.pretrained.transfer import plan_transfer, transfer
from accel_trainer.training.pretrained.weight_files import read_weights
from accel_trainer.zoo import registry

Weights = dict[str, Tensor]
NESTED = [
    "module.", "_orig_mod.", "backbone.", "encoder.", "model.", "net.", "encoder_q.", "module.encoder_q.",
    "model.backbone.", "module.model._orig_mod.", "net.module.encoder.", "encoder.model.net.",
]  # fmt: skip


def small(num_classes: int = 5) -> nn.Module:
    return registry.build(
        "small_cnn", {"features": [4, 8], "kernel_sizes": [3, 3]}, num_classes=num_classes, image_size=8
    )


def filled(model: nn.Module, seed: int = 3) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.rand(value.shape, generator=generator) * 10 + 0.1).to(value.dtype)
        for name, value in model.state_dict().items()
    }


def holds(model: nn.Module, weights: Weights, but: str = "-") -> bool:
    state = model.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in state.items() if not name.startswith(but))


# -- prefixes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", NESTED)
def test_a_prefix_of_a_wrapper_is_found_left_out_and_said(prefix: str, tmp_path: Path) -> None:
    model, weights = small(), filled(small())
    torch.save({"state_dict": {prefix + name: value for name, value in weights.items()}}, tmp_path / "w.pt")
    read = read_weights(tmp_path / "w.pt")
    result = transfer(model, read)
    assert holds(model, weights)
    assert not any([result.missing, result.unused, result.skipped])
    assert result.left_out == prefix
    said = [line for line in result.lines() if "begin with" in line]
    assert said == [f"  names in the file begin with {prefix!r}, which was left out"]
    assert plan_transfer(small(), read) == result


@pytest.mark.parametrize("prefix", ["encoder.", "backbone.model."])
def test_a_prefix_that_only_the_model_has_is_put_before(prefix: str) -> None:
    inner, weights = small(), filled(small())
    model: nn.Module = inner
    for part in reversed(prefix.split(".")[:-1]):
        model = nn.Sequential(OrderedDict([(part, model)]))
    model.add_module("head", nn.Linear(2, 2))
    result = transfer(model, weights)
    assert holds(inner, weights)
    assert (result.left_out, result.put_before) == ("", prefix)
    assert result.missing == ("head.weight", "head.bias")
    other = transfer(model, {f"net.{name}": value for name, value in weights.items()})
    assert (other.left_out, other.put_before) == ("net.", prefix)


def test_an_encoder_with_a_projection_beside_it_is_taken_alone() -> None:
    model, weights = small(), filled(small())
    encoder = {f"encoder_q.{name}": value for name, value in weights.items() if not name.startswith("decoder")}
    momentum = {f"encoder_k.{name}": value + 1 for name, value in weights.items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = transfer(
        model, {**momentum, **encoder, "queue": torch.ones(3), "encoder_q.projector.0.weight": torch.ones(2)}
    )
    assert holds(model, {**weights, **{n: v for n, v in before.items() if n.startswith("decoder")}})
    assert result.left_out == "encoder_q."
    assert [name for name in result.unused if not name.startswith("encoder_k")] == [
        "queue",
        "encoder_q.projector.0.weight",
    ]


def test_a_layer_outside_of_the_prefix_is_taken_by_its_own_name() -> None:
    model, weights = small(), filled(small())
    mixed = {name if name.startswith("decoder") else f"encoder.{name}": value for name, value in weights.items()}
    transfer(model, mixed)
    assert holds(model, weights)


def test_names_of_the_model_itself_are_no_prefix() -> None:
    """torchvision's vision transformer has an `encoder` of its own."""
    model = models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3)
    weights = filled(model)
    assert transfer(model, weights).left_out == ""
    assert holds(model, weights)
    assert transfer(model, {f"encoder.{name}": value + 1 for name, value in weights.items()}).left_out == "encoder."
    assert holds(model, {name: value + 1 for name, value in weights.items()})


def test_two_sets_of_weights_that_fit_alike_are_refused() -> None:
    weights = filled(small())
    both = {f"{prefix}{name}": value for prefix in ("model.", "net.") for name, value in weights.items()}
    assert said_by(transfer, small(), both) == (
        "there are two sets of weights that fit alike, by 'model.' and 'net.'; save one of them alone"
    )
    wrapped = {f"{prefix}{name}": value for prefix in ("module.", "model.") for name, value in weights.items()}
    assert said_by(transfer, small(), wrapped) == (
        "there are two sets of weights that fit alike, by 'module.' and 'model.'; save one of them alone"
    )
    # What has no prefix is the model itself.
    assert transfer(small(), {**both, **weights}).left_out == ""


def test_another_prefix_that_would_fit_is_named() -> None:
    said = said_by(transfer, small(), {f"student.{name}": value for name, value in filled(small()).items()})
    assert said.startswith("nothing fits SmallCNN: there are student.layer1.0.weight")
    assert said.endswith("without 'student.' before the names enough would fit: save the file with such names")


# -- layouts of CORnet's authors ------------------------------------------------------------------------------------
# By their published description; small, with the names of the released files.
FEATURES = (32, 64, 32, 64)


def decoder(features: int) -> nn.Module:
    parts = [("avgpool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("linear", nn.Linear(features, 7))]
    return nn.Sequential(OrderedDict(parts))


class AuthorsZ(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for area, below, above, kernel, stride in zip(
            ("V1", "V2", "V4", "IT"), (3, *FEATURES), FEATURES, (7, 3, 3, 3), (2, 1, 1, 1), strict=False
        ):
            conv = nn.Conv2d(below, above, kernel, stride, kernel // 2)
            parts = [("conv", conv), ("nonlin", nn.ReLU()), ("pool", nn.MaxPool2d(3, 2, 1)), ("output", nn.Identity())]
            self.add_module(area, nn.Sequential(OrderedDict(parts)))
        self.decoder = decoder(FEATURES[-1])

    def forward(self, images: Tensor) -> Tensor:
        for child in self.children():
            images = child(images)
        return images


class AuthorsArea(nn.Module):
    def __init__(self, below: int, features: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_input = nn.Conv2d(below, features, kernel, stride, kernel // 2)
        self.norm_input = nn.GroupNorm(32, features)
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(32, features)

    def forward(self, below: Tensor | None, state: Tensor | float) -> Tensor:
        seen = self.norm_input(self.conv_input(below)).relu() if below is not None else 0.0
        return self.norm1(self.conv1(seen + state)).relu()


class AuthorsR(nn.Module):
    def __init__(self, *, delayed: bool) -> None:
        super().__init__()
        self.delayed = delayed
        for area, below, above, kernel, stride in zip(
            ("V1", "V2", "V4", "IT"), (3, *FEATURES), FEATURES, (7, 3, 3, 3), (4, 2, 2, 2), strict=False
        ):
            self.add_module(area, AuthorsArea(below, above, kernel, stride))
        self.decoder = decoder(FEATURES[-1])

    def forward(self, images: Tensor) -> Tensor:
        areas = [self.V1, self.V2, self.V4, self.IT]
        sides = [images.shape[-1] // 2**power for power in (2, 3, 4, 5)]
        states = [torch.zeros(len(images), n, side, side) for n, side in zip(FEATURES, sides, strict=True)]
        for cycle in range(5):
            before, below = list(states), images
            for index, area in enumerate(areas):
                states[index] = area(below if index == 0 or cycle else None, states[index])
                below = before[index] if self.delayed else states[index]
        return self.decoder(states[-1])


class AuthorsBlock(nn.Module):
    def __init__(self, below: int, features: int, times: int) -> None:
        super().__init__()
        hidden = 4 * features
        self.times = times
        self.conv_input = nn.Conv2d(below, features, 1, bias=False)
        self.skip = nn.Conv2d(features, features, 1, 2, bias=False)
        self.norm_skip = nn.BatchNorm2d(features)
        self.conv1 = nn.Conv2d(features, hidden, 1, bias=False)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, 2, 1, bias=False)
        self.conv3 = nn.Conv2d(hidden, features, 1, bias=False)
        for t in range(times):
            for number, count in ((1, hidden), (2, hidden), (3, features)):
                self.add_module(f"norm{number}_{t}", nn.BatchNorm2d(count))

    def forward(self, below: Tensor) -> Tensor:
        state = self.conv_input(below)
        for t in range(self.times):
            skipped = self.norm_skip(self.skip(state)) if t == 0 else state
            self.conv2.stride = (2, 2) if t == 0 else (1, 1)
            hidden = self.get_submodule(f"norm1_{t}")(self.conv1(state)).relu()
            hidden = self.get_submodule(f"norm2_{t}")(self.conv2(hidden)).relu()
            state = (self.get_submodule(f"norm3_{t}")(self.conv3(hidden)) + skipped).relu()
        return state


class AuthorsS(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = FEATURES[0]
        self.V1 = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, first, 7, 2, 3, bias=False), norm1=nn.BatchNorm2d(first), nonlin1=nn.ReLU(),
                pool=nn.MaxPool2d(3, 2, 1), conv2=nn.Conv2d(first, first, 3, 1, 1, bias=False),
                norm2=nn.BatchNorm2d(first), nonlin2=nn.ReLU(),
            )
        )  # fmt: skip
        self.V2, self.V4, self.IT = (
            AuthorsBlock(below, above, times)
            for below, above, times in zip(FEATURES, FEATURES[1:], (2, 4, 2), strict=False)
        )
        self.decoder = decoder(FEATURES[-1])

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.IT(self.V4(self.V2(self.V1(images)))))


AUTHORS: dict[str, Any] = {
    "cornet_z": AuthorsZ,
    "cornet_r": lambda: AuthorsR(delayed=False),
    "cornet_rt": lambda: AuthorsR(delayed=True),
    "cornet_s": AuthorsS,
}


@pytest.mark.parametrize("name", AUTHORS)
@torch.no_grad()
def test_released_weights_of_a_cornet_give_the_logits_of_its_authors(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    authors = AUTHORS[name]()
    for norm in authors.modules():
        if isinstance(norm, nn.GroupNorm | nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean, norm.running_var = torch.randn(norm.num_features), torch.rand(norm.num_features) + 0.5
    released = {"epoch": 43, "state_dict": nn.DataParallel(authors).state_dict(), "loss": 1.5}
    torch.save(released, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=False)
    model = registry.build(name, {"features": FEATURES}, num_classes=7, image_size=64)
    result = transfer(model, read_weights(tmp_path / "w.pth.tar"))
    assert not any([result.missing, result.unused, result.skipped, result.reshaped])
    assert result.parameters_loaded == result.parameters == sum(p.numel() for p in authors.parameters())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.eval()(images), authors.eval()(images))


def test_a_cornet_s_of_its_authors_gives_its_variant_all_but_v1() -> None:
    model = registry.build("cornet_s_custom", {"F": FEATURES}, num_classes=7, image_size=64)
    weights = AuthorsS().state_dict()
    result = transfer(model, weights)
    assert {name.split(".")[0] for name in result.missing} == {"V1"}
    for name, own in (("IT.conv2.weight", "IT.conv2.weight"), ("decoder.linear.bias", "decoder.linear_0_0.bias")):
        assert torch.equal(model.state_dict()[own], weights[name])


def test_weights_of_the_variants_are_loaded_by_their_own_names() -> None:
    def build() -> nn.Module:
        args = {"F": [8] * 4, "out_channels": 2, "head_depth": 3}
        return registry.build("cornet_s_plus", args, num_classes=5, image_size=64)

    model, weights = build(), filled(build())
    result = transfer(model, {f"module.module.{name}": value for name, value in weights.items()})
    assert holds(model, weights)
    assert not result.missing
