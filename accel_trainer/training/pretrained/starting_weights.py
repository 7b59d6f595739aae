"""What a job starts from: the weights of another run, a file, or those that torchvision publishes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from accel_trainer.config import Job
from accel_trainer.config.places import is_weights_path
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.core.text import first_line, listed
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.pretrained.transfer import Transfer, plan_transfer, transfer
from accel_trainer.training.pretrained.weight_files import (
    describe_load_error,
    extract_state_dict,
    read_shapes,
    read_weights,
    weights_file,
)
from accel_trainer.zoo import registry

# What torchvision gives a model when it takes these weights: they were trained on images in another range.
PUBLISHED_WEIGHTS_ARGS = {name: {"transform_input": True} for name in ("googlenet", "inception_v3")}


def starts_from_weights(job: Job) -> bool:
    """Whether a job starts from trained weights instead of random ones."""
    return job.finetune or job.pretrained is not None


def load_starting_weights(job: Job, model: nn.Module) -> Transfer:
    """Load the weights that the job starts from into its model. Raises UserError."""
    with _prefix_errors(_parameter_name(job)):
        source = _source(job)
        if isinstance(source, models.WeightsEnum):
            name, weights = str(source), _download(source)
        else:
            path = weights_file(source)
            name, weights = str(path.absolute()), read_weights(path)
        with _prefix_errors(name):
            result = transfer(model, weights, frozen=job.frozen_modules, least=job.min_loaded_fraction)
    return replace(result, source=name, frozen=job.frozen_modules)


def weights_source(job: Job) -> Path | models.WeightsEnum:
    """The file that a job starts from, or which of torchvision's weights; nothing is downloaded. Raises UserError."""
    with _prefix_errors(_parameter_name(job)):
        source = _source(job)
        return source if isinstance(source, models.WeightsEnum) else weights_file(source)


def planned_transfer(job: Job, model: nn.Module, file: Path) -> Transfer:
    """What would be loaded of a file into a job's model, which may be on the meta device. Raises UserError where
    nothing would, or too little."""
    with _prefix_errors(_parameter_name(job)), _prefix_errors(str(file)):
        return plan_transfer(model, read_shapes(file), frozen=job.frozen_modules, least=job.min_loaded_fraction)


def check_starting_weights(job: Job, model: nn.Module) -> None:
    """Whether what a job starts from fits its model, which may be on the meta device. Raises UserError.

    Nothing is downloaded. Weights that are still to be trained are not checked, nor are those of a run that has begun,
    which does not need them any more.
    """
    is_resumed = job.checkpoint is None and RunFolder(job.run_path).has_run
    if is_resumed or not starts_from_weights(job):
        return
    with _prefix_errors(_parameter_name(job)):
        source = _source(job)
        if isinstance(source, models.WeightsEnum):
            return
        try:
            path = weights_file(source)
        except UserError:
            if job.may_start_later:
                return
            raise
    planned_transfer(job, model, path)


def _parameter_name(job: Job) -> str:
    """The parameter that says what a job starts from."""
    if job.finetuning is None:
        return "pretrained"
    return "finetune" if job.finetuning.starting_params is None else "finetune_args.starting_params"


@contextmanager
def _prefix_errors(what: str) -> Iterator[None]:
    """Errors of the body begin with `what`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    except OSError as error:
        raise UserError(f"{what}: cannot be read: {error}") from error


def _source(job: Job) -> Path | models.WeightsEnum:
    """Where the weights are, or which of torchvision's they are. Raises UserError."""
    if job.starting_path is not None:
        return job.starting_path
    if job.pretrained is None:
        raise ValueError("the job starts from random weights")
    published = published_weights(job.architecture)
    if job.pretrained in published:
        return published[job.pretrained]
    # os.path: what cannot be a path at all does not exist either.
    if is_weights_path(job.pretrained) or os.path.exists(job.pretrained):  # noqa: PTH110
        return expand_home(job.pretrained)
    if not published:
        raise UserError(
            f"torchvision has no weights for {job.architecture}; instead of {job.pretrained!r} give the path of a "
            "file of weights or of a run folder"
        )
    raise UserError(
        f"torchvision has no weights {job.pretrained!r} for {job.architecture}; it has {listed(published)}; "
        "the path of a file or of a run folder works too"
    )


def published_weights(architecture: str) -> dict[str, models.WeightsEnum]:
    """torchvision's weights for an architecture, by name; none for those that are not torchvision's."""
    if architecture in registry.ZOO:
        return {}
    try:
        return dict(models.get_model_weights(architecture).__members__)
    except ValueError:
        return {}


def published_weights_args(job: Job) -> dict[str, Any]:
    """Arguments that published weights need in the architecture's constructor."""
    if job.pretrained is None or job.pretrained not in published_weights(job.architecture):
        return {}
    return PUBLISHED_WEIGHTS_ARGS.get(job.architecture, {})


def _download(published: models.WeightsEnum) -> dict[str, Tensor]:
    """Published weights, from the network unless they are in torch.hub's folder already. Raises UserError."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(published.url).name
    try:
        content = published.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # of the network, the disk or the unpickler, in every way there is
        if file.exists():
            raise UserError(f"{file}: {describe_load_error(error)}") from error
        raise UserError(
            f"{published}: {published.url} cannot be downloaded ({first_line(error)}); put that file at {file}, "
            "or give pretrained the path of a file"
        ) from error
    return extract_state_dict(content, file)
