"""What can be named as an architecture, with what it takes and how large it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torchvision import models

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.zoo import registry

NUM_CLASSES = 1000
IMAGE_SIZE = 224


@dataclass(frozen=True)
class Entry:
    """A model as it is built by name alone. `parameters`: at 1000 classes, and 224 pixels where they depend on it."""

    name: str
    family: str
    source: Literal["zoo", "torchvision"]
    takes: Literal["images", "clips", "both"]
    parameters: int


def catalogue(family: str | None = None) -> list[Entry]:
    """The models of the zoo and of torchvision, of one family or of all. Raises UserError for an unknown family.

    A family is the file that its builders are in, such as `cornet`, `resnet`, or `video.resnet` for models of clips.
    """
    names = registry.names()
    if family is not None:
        families = sorted({_family(name) for name in names})
        if family.lower() not in families:
            near = did_you_mean(family, families)
            raise UserError(f"--family: there is no {family!r}{near}; there are {listed(families, len(families))}")
        names = [name for name in names if _family(name) == family.lower()]
    return [_entry(name) for name in names]


def _family(name: str) -> str:
    if name in registry.ZOO:
        return registry.ZOO[name].__module__.rpartition(".")[2]
    return str(models.get_model_builder(name).__module__).removeprefix("torchvision.models.")


def _entry(name: str) -> Entry:
    source: Literal["zoo", "torchvision"] = "zoo" if name in registry.ZOO else "torchvision"
    with torch.device("meta"):
        try:
            model = registry.build(name, {}, num_classes=NUM_CLASSES, image_size=IMAGE_SIZE)
        except NotImplementedError:
            # On a CPU they take seconds and gigabytes.
            return Entry(name, _family(name), source, "images", _published_parameters(name))
        takes: Literal["images", "clips", "both"] = "clips" if registry.takes_only_clips(name) else "images"
        if source == "zoo" and _takes_clips(model):
            takes = "both"
    return Entry(name, _family(name), source, takes, sum(parameter.numel() for parameter in model.parameters()))


def _takes_clips(model: torch.nn.Module) -> bool:
    try:
        model.eval()(torch.empty(1, 2, 3, IMAGE_SIZE, IMAGE_SIZE))
    except (RuntimeError, ValueError):
        return False
    return True


def _published_parameters(name: str) -> int:
    weights: Sequence[models.WeightsEnum] = list(models.get_model_weights(name))
    return next(int(w.meta["num_params"]) for w in weights if len(w.meta["categories"]) == NUM_CLASSES)
