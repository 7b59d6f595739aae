"""Models that do not ask how many classes there are get as many outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import said_by
from torch import nn

from accel_trainer.config import Job
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.keyed_random import key
from accel_trainer.training.build import build
from accel_trainer.training.check import JobChecker
from accel_trainer.training.meta_model import make_model

MakeJob = Callable[..., Job]

MODELS = '''
import torch
from torch import nn
from torchvision import models
from torch.nn.utils import parametrizations


class Net(nn.Module):
    """Its output layer is defined first."""
    def __init__(self, width=4, out=1000):
        super().__init__()
        self.classifier = nn.Linear(width, out, bias=False)
        self.conv = nn.Conv2d(3, width, 3)
        self.hidden = nn.Linear(width, width)

    def forward(self, images):
        return self.classifier(self.hidden(self.conv(images).mean((2, 3))).relu())


class Recurrent(Net):
    def forward(self, images):
        state = self.conv(images).mean((2, 3))
        outputs = []
        for _ in range(3):
            state = self.hidden(state)
            outputs.append(self.classifier(state))
        return torch.stack(outputs, 1)


class Heads(Net):
    cycle_axis = 2
    def forward(self, images):
        return super().forward(images)[:, :, None].expand(-1, -1, 2)


class Normalized(nn.Linear):
    pass


class OwnLayer(Net):
    def __init__(self):
        super().__init__()
        self.classifier = Normalized(4, 1000)


class Parametrized(Net):
    def __init__(self):
        super().__init__()
        self.classifier = parametrizations.weight_norm(nn.Linear(4, 1000))


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.classes = nn.Embedding(1000, 4)
        self.classifier.weight = self.classes.weight


class Twice(Net):
    def __init__(self):
        super().__init__()
        self.same = self.classifier


class Summed(Net):
    """Gives fewer numbers than its last layer."""
    def forward(self, images):
        return super().forward(images).unflatten(1, (500, 2)).mean(2)


class TwoHeads(Net):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(4, 1000)

    def forward(self, images):
        hidden = self.hidden(self.conv(images).mean((2, 3)))
        return torch.stack([self.classifier(hidden), self.other(hidden)], 1)


class Without(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 1000))

    def forward(self, images):
        return images.mean((2, 3)) @ self.weight


class Broken(Net):
    def forward(self, images):
        raise ValueError("I do not like these images")


class TakesAndIgnores(Net):
    def __init__(self, num_classes):
        super().__init__()


class NeedsValues(Net):
    def forward(self, images):
        return super().forward(images) * (1 if float(images.sum()) == 0 else 2)


def convolution():
    return models.squeezenet1_1()


def resnet():
    return models.resnet18()


def single():
    return nn.Conv2d(3, 1000, 1)


def auxiliary():
    return models.googlenet(init_weights=False)
'''


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_job: MakeJob) -> Callable[..., Job]:
    """A job that trains a model of a package with these models, on ten classes."""
    (tmp_path / "their_lab.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(ALLOW_VARIABLE, "their_lab")

    def make(name: str, **given: Any) -> Job:
        return make_job(architecture=f"their_lab:{name}", **given)

    return make


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("Net", "classifier"),
        ("Recurrent", "classifier"),
        ("Heads", "classifier"),
        ("NeedsValues", "classifier"),
        ("resnet", "fc"),
        ("convolution", "classifier.1"),
    ],
)
def test_the_layer_that_gives_the_logits_is_fitted_to_the_classes(
    theirs: Callable[..., Job], name: str, layer: str
) -> None:
    job = theirs(name, image_size=64)
    assert JobChecker()(job, 1).classes == 10
    model = build(job.resolve(), world_size=1).model
    torch.manual_seed(key(job.seed, "initialization"))
    plain = __import__("their_lab").__dict__[name]()
    new, old = model.get_submodule(layer), plain.get_submodule(layer)
    assert (type(new), new.bias is None, new.weight.dtype) == (type(old), old.bias is None, old.weight.dtype)
    assert new.weight.shape == (10, *old.weight.shape[1:])
    others = {n: v for n, v in plain.state_dict().items() if not n.startswith(f"{layer}.")}
    assert all(torch.equal(model.state_dict()[n], value) for n, value in others.items())
    assert model.state_dict().keys() == plain.state_dict().keys()
    again = build(job.resolve(), world_size=1).model.get_submodule(layer)
    assert torch.equal(again.weight, new.weight)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("OwnLayer", "its output layer classifier is a Normalized"),
        ("Parametrized", "its output layer classifier is a ParametrizedLinear"),
        ("Tied", "its output layer classifier shares its weights with classes"),
        ("Twice", "its output layer classifier is used under another name too"),
        ("Summed", "the last layer that it calls, classifier, has 1000 units, and its output has 500"),
        ("Without", "it calls no linear layer or 1x1 convolution that could be its output layer"),
        ("single", "it is a single layer"),
        ("auxiliary", "it gives a GoogLeNetOutputs, whose output layer is not looked for"),
    ],
)
def test_an_output_layer_that_cannot_be_fitted_is_refused_with_the_reason(
    theirs: Callable[..., Job], name: str, why: str
) -> None:
    said = said_by(JobChecker(), theirs(name, image_size=64), 1)
    assert f"does not take num_classes, and its output layer cannot be fitted: {why}" in said
    assert said.endswith("let its constructor take `num_classes` and make as many")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TakesAndIgnores", "their_lab:TakesAndIgnores gives 1000 logits, but there are 10 classes; let its"),
        ("TwoHeads", "image_size: their_lab:TwoHeads does not work with images of 32 pixels: "),
        ("Broken", "image_size: their_lab:Broken does not work with images of 32 pixels: ValueError: I do not like"),
    ],
)
def test_other_mistakes_of_a_model_are_reported_as_they_were(theirs: Callable[..., Job], name: str, said: str) -> None:
    assert said in said_by(JobChecker(), theirs(name), 1)


def test_a_model_with_the_right_number_of_outputs_stays_as_it_is(theirs: Callable[..., Job]) -> None:
    torch.manual_seed(3)
    model = make_model(theirs("Net", architecture_args={"out": 10}), 10)
    torch.manual_seed(3)
    plain = __import__("their_lab").Net(out=10)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


def test_embeddings_keep_the_size_that_the_model_gives_them(theirs: Callable[..., Job]) -> None:
    job = theirs("Net", criterion="SimCLRLoss", num_views=2, primary_metric="contrastive_acc")
    layer = make_model(job, 10).get_submodule("classifier")
    assert isinstance(layer, nn.Linear)
    assert layer.out_features == 1000
