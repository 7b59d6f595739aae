"""Which architectures there are, and how to build one for a number of classes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models

from accel_trainer.core.construct import refuse_unknown, with_classes
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, first_line, listed, near_misses
from accel_trainer.zoo import blt, cornet, cornet_plus, small, timm_models, user_models

# Models of this package by family, which win over torchvision's of the same name.
ZOO_FAMILIES = {"cornet": {**cornet.MODELS, **cornet_plus.MODELS}, "blt": blt.MODELS, "small": small.MODELS}
ZOO: dict[str, Callable[..., nn.Module]] = {
    name: builder for models in ZOO_FAMILIES.values() for name, builder in models.items()
}


def names() -> list[str]:
    """The zoo's names, and those of torchvision's classification models, of images and of clips."""
    torchvisions = [*models.list_models(module=models), *models.list_models(module=models.video)]
    return [*ZOO, *(name for name in torchvisions if name not in ZOO)]


def takes_only_clips(name: str) -> bool:
    """Whether a model's input must be a clip (batch, frames, 3, image_size, image_size)."""
    return name not in ZOO and name in models.list_models(module=models.video)


def is_of_torchvision(name: str) -> bool:
    """Whether a model is built by torchvision."""
    return not is_others(name) and name not in ZOO and name in names()


def is_others(name: str) -> bool:
    """Whether a model is neither of the zoo nor of torchvision: it may do what cannot be done on the meta device."""
    return ":" in name


def is_users_own(name: str) -> bool:
    """Whether it is the import path of a model that users have written."""
    return is_others(name) and not name.startswith(timm_models.PREFIX)


def fits_its_output(name: str) -> bool:
    """Whether a model that `build` gives has as many outputs as there are classes. Not so what users have written that
    does not take `num_classes`. Raises UserError."""
    return not is_users_own(name) or user_models.takes_num_classes(name)


def build(name: str, args: Mapping[str, Any], *, num_classes: int, image_size: int) -> nn.Module:
    """A new model with random weights whose output layer has `num_classes` units, if it `fits_its_output`.

    `name` is one of `names`, `timm:` and a name of timm, or an import path such as `my_lab.models:Net`.
    Takes images (batch, 3, image_size, image_size), or clips where `takes_only_clips` says so; recurrent models of the
    zoo take both. Gives logits (batch, num_classes); in training mode some families give a named tuple of logits and
    auxiliary logits. Raises UserError for an unknown name or argument; NotImplementedError where a model of
    torchvision cannot be built on the meta device.
    """
    if name.startswith(timm_models.PREFIX):
        plain_name = name.removeprefix(timm_models.PREFIX)
        return timm_models.build(plain_name, args, num_classes=num_classes, image_size=image_size)
    if is_others(name):
        return user_models.build(name, args, num_classes=num_classes, image_size=image_size)
    if name not in (known := names()):
        raise UserError(
            f"no model {name!r} in the zoo or in torchvision{did_you_mean(name, [*known, *_of_timm(name)])}",
            key="architecture",
            hint="models of your own are named by import path, such as my_lab.models:Net, those of timm as timm:<name>",
        )
    args = arguments(name, args, num_classes=num_classes, image_size=image_size)
    try:
        return ZOO[name](**args) if name in ZOO else _torchvisions(name, args)
    except NotImplementedError:  # of the meta device, which cannot do all that constructors do
        raise
    except Exception as error:
        raise UserError(f"{name}: {first_line(error)}", key="architecture_args") from error


def arguments(name: str, args: Mapping[str, Any], *, num_classes: int, image_size: int) -> dict[str, Any]:
    """With what `build` calls the builder of a model of the zoo, of torchvision or of timm. Raises UserError."""
    if name.startswith(timm_models.PREFIX):
        plain_name = name.removeprefix(timm_models.PREFIX)
        return timm_models.arguments(plain_name, args, num_classes=num_classes, image_size=image_size)
    args = with_classes(args, num_classes)
    accepted = list(inspect.signature(ZOO[name]).parameters) if name in ZOO else _constructor_arguments(name)
    for argument, value in (
        # For families with a fixed input size; the others take any.
        ("image_size", image_size),
        ("input_size", (image_size, image_size)),
        # GoogLeNet and Inception warn where this is not given.
        ("init_weights", True),
    ):
        if argument in accepted:
            args.setdefault(argument, value)
    refuse_unknown("architecture", name, args, accepted)
    return args


def _of_timm(name: str) -> list[str]:
    """How models of timm are named that a name may be meant for, where timm is installed."""
    if not timm_models.is_installed():
        return []
    near = near_misses(name, timm_models.names())
    return [f"{timm_models.PREFIX}{one}" for one in near if one == name.lower() or one not in names()]


def _torchvisions(name: str, args: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = models.get_model(name, weights=None, **args)
    if takes_only_clips(name):
        model.register_forward_pre_hook(_channels_before_frames)
    return model


def _channels_before_frames(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """torchvision's models of clips take (batch, 3, frames, height, width)."""
    return (inputs[0].transpose(1, 2), *inputs[1:])


def _constructor_arguments(name: str) -> list[str]:
    """What a torchvision builder passes on to its model's constructor.

    The builders take **kwargs: the names are those of the constructor of the class they say they return,
    less the ones that make the builder's model what it is (such as resnet18's `layers`).
    """
    builder: Callable[..., nn.Module] = models.get_model_builder(name)
    model_class = inspect.signature(builder).return_annotation
    if not (inspect.isclass(model_class) and issubclass(model_class, nn.Module)):
        raise UserError(f"{name!r} is not a model that can be trained here", key="architecture")
    fixed = _FIXED_BY_THE_BUILDER | _FIXED_IN_A_FAMILY.get(model_class.__name__, frozenset())
    own = [p for p in inspect.signature(builder).parameters.values() if p.kind is not p.VAR_KEYWORD]
    constructor = list(inspect.signature(model_class).parameters.values())
    return list(
        dict.fromkeys(
            p.name
            for p in (*own, *constructor)
            if p.kind is not p.VAR_KEYWORD and p.name not in fixed and p.name not in ("weights", "progress")
        )
    )


# What torchvision's builders set themselves, so that a job cannot.
_FIXED_BY_THE_BUILDER = frozenset(
    {
        "block", "layers", "features", "growth_rate", "block_config", "num_init_features", "version", "alpha",
        "inverted_residual_setting", "last_channel", "block_params", "stages_repeats", "stages_out_channels",
        "patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim", "embed_dim", "depths", "window_size",
        "block_setting", "stem_channels", "block_channels", "block_layers", "head_dim", "partition_size",
        "conv_makers", "stem", "spatial_size", "temporal_size",
    }
)  # fmt: skip
_FIXED_IN_A_FAMILY = {
    "SwinTransformer": frozenset({"stochastic_depth_prob"}),
    "MaxVit": frozenset({"stochastic_depth_prob"}),
}
NUM_CLASSES = 1000
IMAGE_SIZE = 224


@dataclass(frozen=True)
class ModelEntry:
    """A model as it is built by name alone. `parameters`: at 1000 classes, and 224 pixels where they depend on it."""

    name: str
    family: str
    source: Literal["zoo", "torchvision"]
    takes: Literal["images", "clips", "both"]
    parameters: int


def catalogue(family: str | None = None) -> list[ModelEntry]:
    """The models of the zoo and of torchvision, of one family or of all. Raises UserError for an unknown family.

    A family is one of the zoo's, such as `cornet`, or the file of torchvision that its builders are in, such as
    `resnet`, or `video.resnet` for models of clips.
    """
    chosen = names()
    if family is not None:
        families = sorted({_family(name) for name in chosen})
        if family.lower() not in families:
            near = did_you_mean(family, families)
            raise UserError(
                f"there is no {family!r}{near}; there are {listed(families, len(families))}", option="family"
            )
        chosen = [name for name in chosen if _family(name) == family.lower()]
    return [_entry(name) for name in chosen]


def _family(name: str) -> str:
    for family, members in ZOO_FAMILIES.items():
        if name in members:
            return family
    return str(models.get_model_builder(name).__module__).removeprefix("torchvision.models.")


def _entry(name: str) -> ModelEntry:
    source: Literal["zoo", "torchvision"] = "zoo" if name in ZOO else "torchvision"
    with torch.device("meta"):
        try:
            model = build(name, {}, num_classes=NUM_CLASSES, image_size=IMAGE_SIZE)
        except NotImplementedError:
            # On a CPU they take seconds and gigabytes.
            return ModelEntry(name, _family(name), source, "images", _published_parameters(name))
        takes: Literal["images", "clips", "both"] = "clips" if takes_only_clips(name) else "images"
        if source == "zoo" and _takes_clips(model):
            takes = "both"
    return ModelEntry(name, _family(name), source, takes, sum(parameter.numel() for parameter in model.parameters()))


def _takes_clips(model: torch.nn.Module) -> bool:
    try:
        model.eval()(torch.empty(1, 2, 3, IMAGE_SIZE, IMAGE_SIZE))
    except (RuntimeError, ValueError):
        return False
    return True


def _published_parameters(name: str) -> int:
    weights: Sequence[models.WeightsEnum] = list(models.get_model_weights(name))
    return next(int(w.meta["num_params"]) for w in weights if len(w.meta["categories"]) == NUM_CLASSES)
