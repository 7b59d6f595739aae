"""The model of a run, with trained weights in it."""

import json
from pathlib import Path

import torch
from torch import nn

from accel_trainer.config import ResolvedJob
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.core.text import first_line
from accel_trainer.training.meta_model import make_model
from accel_trainer.training.state.checkpoint import load_weights


def trained_model(job: ResolvedJob, path: Path, num_classes: int) -> nn.Module:
    """A job's model with the weights of a file, on torch's default device and in evaluation mode.

    torch's generator stays where it was. Raises UserError for weights that do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        model = make_model(job, num_classes)
    try:
        model.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit {job.architecture}: {first_line(error)}") from error
    return model.eval()


def with_data_in(job: ResolvedJob, data_root: Path | None) -> ResolvedJob:
    """A job whose data sets are in that folder; where it is None, the job itself. Raises UserError for a `~` without a
    home folder."""
    return job if data_root is None else job.model_copy(update={"data_root": str(expand_home(data_root).resolve())})


def epoch_of(path: Path) -> int | None:
    """The epoch after which weights were saved, None if it is not in their file. Raises OSError."""
    with path.open("rb") as file:  # safe_open also maps all of it, and fails in ways of its own
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    epoch = (header.get("__metadata__") or {}).get("epoch", "")
    return int(epoch) if epoch.isdigit() else None
