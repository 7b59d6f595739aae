"""Models of timm by name, such as `timm:convnext_tiny`. timm is optional, and imported only when one is named."""

import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from accel_trainer.core.construct import with_classes
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, first_line
from accel_trainer.zoo.user_models import import_aside

PREFIX = "timm:"
# Beside the arguments of timm.create_model itself: what loads weights or files, and what gives features for logits.
DECIDED_HERE = frozenset(
    {
        "cache_dir", "feature_cfg", "feature_cls", "features_only", "in_chans", "kwargs_filter", "model_cfg",
        "out_indices", "pretrained_filter_fn", "pretrained_model_args", "pretrained_strict", "pruned",
    }
)  # fmt: skip


def is_installed() -> bool:
    """Whether timm can be imported; it is not imported."""
    return importlib.util.find_spec("timm") is not None


def names() -> list[str]:
    """timm's names, without the tags of its weights. Raises UserError where timm is not installed."""
    return list(_timm().list_models())


def build(name: str, args: Mapping[str, Any], *, num_classes: int, image_size: int) -> nn.Module:
    """A new model of timm, named without the prefix; its weights are random, nothing is downloaded.

    Takes images (batch, 3, image_size, image_size), gives logits (batch, num_classes). Models with a fixed input size
    get `image_size`. Raises UserError for an unknown name or argument.
    """
    timm = _timm()
    args = arguments(name, args, num_classes=num_classes, image_size=image_size)
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **args)
    except Exception as error:
        raise UserError(f"{PREFIX}{name}: {first_line(error)}", key="architecture_args") from error
    return model


def arguments(name: str, args: Mapping[str, Any], *, num_classes: int, image_size: int) -> dict[str, Any]:
    """With what `timm.create_model` is called for a model, named without the prefix. Raises UserError as `build`."""
    timm = _timm()
    if name not in (known := timm.list_models()):
        base = name.partition(".")[0]
        near = f"; did you mean {base!r}? Weights are not loaded by it" if base in known else did_you_mean(name, known)
        raise UserError(f"no model {name!r} in timm{near or '; timm.list_models() has them all'}", key="architecture")
    args = with_classes(args, num_classes)
    decided = DECIDED_HERE.union(inspect.signature(timm.create_model).parameters)
    if taken := [argument for argument in args if argument in decided]:
        raise UserError("cannot be set for models of timm", key=f"architecture_args.{taken[0]}", hint="remove it")
    if timm.get_pretrained_cfg(name).fixed_input_size:
        args.setdefault("img_size", image_size)
    return args


def default_config(name: str) -> dict[str, Any]:
    """What timm says of the weights that it has by default for an architecture, named without the prefix: input_size,
    crop_pct, mean, std, interpolation. Empty where it has none."""
    config = _timm().get_pretrained_cfg(name)
    return {} if config is None else dict(config.to_dict())


def _timm() -> Any:
    if not is_installed():
        raise UserError("timm is not installed; pip install 'accel-train[timm]'", key="architecture")
    return import_aside("timm")
