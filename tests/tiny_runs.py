"""Tiny jobs, trained in this process, and what their trainers saw and gave."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from accel_trainer import Job, Run, train
from accel_trainer.training.validation import Evaluator

TINY: dict[str, Any] = {
    "architecture": "small_cnn",
    "architecture_args": {"features": [8, 8, 8]},
    "dataset": "digits",
    "class_subset": [2, 0, 1],
    "image_size": 16,
    "num_epochs": 1,
    "batch_size": 64,
    "optimizer": "AdamW",
    "optimizer_args": {"lr": 0.003},
    "num_workers": 0,
    "trackers": [],
}


def tiny_job(folder: Path, **changes: Any) -> Job:
    """A job that trains in a second, with some parameters changed."""
    return Job.model_validate({**TINY, "model_dir": str(folder), **changes})


def finish(folder: Path, **changes: Any) -> Run:
    """A tiny job, trained to its end in this process."""
    return train(tiny_job(folder, **changes), cpu=True, progress=False, allow="tiny_models")


@dataclass
class Seen:
    """Batches that a trainer was evaluated on, and what its model gave for each."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


def record_evaluation(found: Seen) -> Any:
    """An `Evaluator.forward` that notes what it is given and gives."""
    forward = Evaluator.forward

    def recording(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for batch, output in forward(*args, **kwargs):
            found.inputs.append(batch.inputs.on("cpu").clone())
            found.outputs.append(output.clone())
            yield batch, output

    return recording
