"""The trained model that is exported, with what is known of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Self

import torch
from safetensors.torch import save
from torch import Tensor, nn

from accel_trainer.config import ResolvedJob
from accel_trainer.evaluation.layers import example
from accel_trainer.evaluation.trained_model import epoch_of, trained_model
from accel_trainer.export.preprocessing import Preprocessing
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import is_anchor, trained_classes, trained_job, trained_weights
from accel_trainer.training.meta_model import count_parameters, cycle_axis
from accel_trainer.training.objectives.base import by_cycle, main_output
from accel_trainer.training.pretrained.starting_weights import published_weights_args
from accel_trainer.training.state.checkpoint import load_weights
from accel_trainer.zoo import registry

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Source:
    """A run, and the weights of it that are exported. word: as they were named; epoch: after which they were saved."""

    run: RunFolder
    job: ResolvedJob
    classes: list[str]
    word: str
    path: Path
    epoch: int | None
    model: nn.Module

    @classmethod
    def of(cls, run: RunFolder, word: str) -> Self:
        """Raises UserError for weights that are not there, or do not fit."""
        job = trained_job(run)
        path, classes = trained_weights(run, job, word), trained_classes(run)
        model = trained_model(job, path, len(classes))
        return cls(run, job, classes, word, path, epoch_of(path), model)

    @property
    def architecture(self) -> str:
        """As the job names it."""
        return self.job.architecture

    @property
    def name(self) -> str:
        """That of the job."""
        return self.job.name

    @cached_property
    def not_trained_here(self) -> str | None:
        """Which weights they are that were only evaluated; None for those of a training."""
        return PurePath(self.job.pretrained or "weights").name if is_anchor(self.run) else None

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Of the run's validation."""
        return Preprocessing.of(self.job)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """With what the architecture's builder is called. Not of models of users. Raises UserError."""
        job = self.job
        args = {**published_weights_args(job), **job.architecture_args}
        num_classes = args.get("num_classes", len(self.classes)) if job.is_contrastive else len(self.classes)
        return registry.arguments(job.architecture, args, num_classes=num_classes, image_size=job.image_size)

    @cached_property
    def parameters(self) -> int:
        """How many numbers its parameters are."""
        return count_parameters(self.model)

    @cached_property
    def num_cycles(self) -> int:
        """Of how many cycles the model gives logits."""
        return by_cycle(self._output, cycle_axis(self.model)).shape[1]

    @cached_property
    def num_outputs(self) -> int:
        """How many logits there are of a class each; of a contrastive run, how long an embedding is."""
        return by_cycle(self._output, cycle_axis(self.model)).shape[-1]

    @cached_property
    def _output(self) -> Tensor:
        with torch.no_grad():
            return main_output(self.model(self.random_inputs(2)))

    @property
    def input_of_use(self) -> str:
        """The code of one input of the model, made of image.png by `preprocess`."""
        return "preprocess('image.png')[None]"

    def random_inputs(self, number: int) -> Tensor:
        """Standard normal numbers in the shape of so many inputs of the model, the same each time."""
        return torch.randn(example(self.job, number).shape, generator=torch.Generator().manual_seed(number))

    def save_weights(self, folder: Path) -> None:
        """Write the weights as they are in the run, by their names there. Raises OSError."""
        about = {"format": "pt"} if self.epoch is None else {"format": "pt", "epoch": str(self.epoch)}
        (folder / WEIGHTS).write_bytes(save(load_weights(self.path), metadata=about))
