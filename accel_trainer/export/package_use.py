"""How an export is loaded with this package, and the other end of that: what was exported, loaded."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from accel_trainer.config import ResolvedJob, parse_job
from accel_trainer.config.derived import keys
from accel_trainer.config.marks import PathKind
from accel_trainer.config.places import is_weights_path
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import read_json
from accel_trainer.evaluation.trained_model import trained_model
from accel_trainer.export.folder import CONFIG, read_own
from accel_trainer.export.form import Use
from accel_trainer.export.source import WEIGHTS, Source
from accel_trainer.run.load import NOT_NEEDED
from accel_trainer.zoo import registry

CLASSES = "classes.json"
# Paths say nothing of the model, but for the data set, which a job has to have.
_PATHS = keys(lambda mark: mark.path is not None and mark.path is not PathKind.DATASET)


def use_of_package(source: Source) -> Use:
    """Code that loads the export with this package."""
    allow = ""
    if registry.is_users_own(source.architecture):
        package = source.architecture.partition(":")[0].partition(".")[0]
        allow = f"allow={package!r}"
    code = f"""\
import torch
from accel_trainer import load_export

exported = load_export(".")
model = exported.model({allow})
with torch.inference_mode():
    output = model(exported.transform("image.png")[None])
"""
    return Use("With accel-train", code)


def exported_job(folder: Path) -> ResolvedJob:
    """The job of an export, without what it was trained on and with. Raises UserError."""
    own = read_own(folder)
    if not isinstance(own.get("job"), dict):
        raise UserError(f"{folder} is no export: it has no {CONFIG} of `accel-train export`")
    config = {key: _without_paths(key, value) for key, value in own["job"].items() if key not in NOT_NEEDED}
    config = {key: value for key, value in config.items() if value is not None}
    content = json.dumps({**config, "trackers": []}).encode()
    return parse_job(content, str(own.get("name", folder.name)), where=str(folder / CONFIG)).resolve()


def _without_paths(key: str, value: Any) -> Any:
    """A parameter's value; None for a path. The name of published weights may decide arguments of the architecture."""
    if key in _PATHS:
        return value if key == "pretrained" and value is not None and not is_weights_path(value) else None
    if isinstance(value, dict):
        return {inner: part for inner, part in value.items() if f"{key}.{inner}" not in _PATHS}
    return value


def exported_classes(folder: Path) -> list[str]:
    """The names of the classes, in the order of the logits. Raises UserError."""
    try:
        return [str(name) for name in read_json(folder / CLASSES)]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the classes of the export cannot be read: {error}", where=folder / CLASSES) from error


def exported_model(folder: Path) -> nn.Module:
    """The model of an export, with its weights. Raises UserError."""
    job, path = exported_job(folder), folder / WEIGHTS
    if not path.is_file():
        own = read_own(folder)
        raise UserError(
            f"{folder} has no {WEIGHTS}: it is of the format {own.get('format')}, whose card says how to load it"
        )
    return trained_model(job, path, len(exported_classes(folder)))
