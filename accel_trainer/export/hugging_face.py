"""The layout of the Hugging Face hub: loaded by timm and transformers where timm has the architecture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import first_line
from accel_trainer.data.augment.resizing import Filter
from accel_trainer.export.form import ExportOptions, Form, Use
from accel_trainer.export.package_use import use_of_package
from accel_trainer.export.source import Source
from accel_trainer.training.objectives.base import main_output
from accel_trainer.zoo import registry, timm_models
from accel_trainer.zoo.user_models import import_aside

# Largest difference of logits from those of a model of timm that counts as the same architecture.
SAME = 1e-5

TIMM_USE = """\
import timm
import torch
from preprocessing import preprocess

model = timm.create_model("local-dir:.", pretrained=True).eval()
with torch.inference_mode():
    logits = model(preprocess("image.png")[None])
"""
TRANSFORMERS_USE = """\
import torch
from preprocessing import preprocess
from transformers import AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained(".").eval()
with torch.inference_mode():
    logits = model(preprocess("image.png")[None]).logits
"""
RESIZING = (
    "`timm.data.create_transform` and `AutoImageProcessor` resize with Pillow, whose pixels differ from those of the "
    "training by one level of 255 here and there; `preprocess` gives the training's own."
)


def write_hugging_face(source: Source, folder: Path, options: ExportOptions) -> Form:
    """model.safetensors, and config.json as timm reads it where a model of timm gives the same logits; else the card
    says why there is none."""
    source.save_weights(folder)
    why = _why_not_timm(source)
    if why is None:
        name, args = _name_in_timm(source)
        model, difference = _same_in_timm(source, name, args)
        if model is not None:
            return _timm_form(source, name, args, model, difference)
        why = f"timm's {name} is another network, or takes other arguments"
    notes = [f"It cannot be loaded by timm, nor by transformers as a model of timm: {why}."]
    return Form("accel-train", [use_of_package(source)], notes=notes)


def _why_not_timm(source: Source) -> str | None:
    """Why no model of timm is tried; None where there is one of that name."""
    name = source.architecture
    if source.job.video or registry.takes_only_clips(name):
        return "models of timm take images, and it takes clips"
    if name.startswith(timm_models.PREFIX):
        return None
    if not registry.is_of_torchvision(name):
        return f"timm has no {name}"
    if not timm_models.is_installed():
        raise UserError(
            f"whether timm has {name} cannot be said, as it is not installed",
            hint="pip install 'accel-train[timm]', or take the format torchvision",
        )
    return None if name in timm_models.names() else f"timm has no {name}"


def _name_in_timm(source: Source) -> tuple[str, dict[str, Any]]:
    """How the architecture may be called in timm, and with which arguments, but for the number of classes."""
    if source.architecture.startswith(timm_models.PREFIX):
        args = {name: value for name, value in source.arguments.items() if name != "num_classes"}
        return source.architecture.removeprefix(timm_models.PREFIX), args
    return source.architecture, {}


def _same_in_timm(source: Source, name: str, args: Mapping[str, Any]) -> tuple[nn.Module | None, float]:
    """timm's model with the weights, and by how much its logits differ at most; None where it is another network."""
    try:
        with torch.random.fork_rng(devices=[]):
            model = import_aside("timm").create_model(name, num_classes=source.num_outputs, **args)
        model.load_state_dict(source.model.state_dict())
    except Exception:  # what it is called with may mean something else there, or nothing
        return None, float("nan")
    inputs = source.random_inputs(2)
    with torch.inference_mode():
        theirs, ours = model.eval()(inputs), main_output(source.model(inputs))
    if theirs.shape != ours.shape:
        return None, float("nan")
    difference = float((theirs - ours).abs().max())
    return (model if difference <= SAME else None), difference


def _timm_form(source: Source, name: str, args: Mapping[str, Any], model: Any, difference: float) -> Form:
    try:
        config = _timm_config(source, name, args, model)
    except (AttributeError, KeyError) as error:
        raise UserError(f"timm does not say what its {name} is: {first_line(error)}; another version may") from error
    uses = [Use("With timm", TIMM_USE)]
    notes = [RESIZING] if source.preprocessing.interpolation == Filter.BILINEAR else []
    tags = ["timm"]
    if source.job.is_contrastive:
        notes.append("Its outputs are embeddings, not logits: it was trained with a contrastive loss.")
    else:
        uses.append(Use("With transformers", TRANSFORMERS_USE))
        tags.append("transformers")
    return Form("timm", [*uses, use_of_package(source)], config, tags, notes, {"timm": difference})


def _timm_config(source: Source, name: str, args: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """config.json of timm's `local-dir` and `hf-hub`."""
    about, published = source.preprocessing, model.pretrained_cfg
    config: dict[str, Any] = {
        "architecture": name,
        "num_classes": source.num_outputs,
        "num_features": model.num_features,
    }
    if not source.job.is_contrastive:
        config["label_names"] = list(source.classes)
    if args:
        config["model_args"] = dict(args)
    config["pretrained_cfg"] = {
        "custom_load": False,
        "input_size": [3, about.image_size, about.image_size],
        "fixed_input_size": bool(published.get("fixed_input_size", False)),
        "interpolation": about.interpolation,
        "crop_pct": about.crop_share,
        "crop_mode": "squash" if about.squash else about.crop,
        "mean": list(about.mean),
        "std": list(about.std),
        "num_classes": source.num_outputs,
        "pool_size": None,
        "first_conv": published.get("first_conv"),
        "classifier": published.get("classifier"),
    }
    return config
