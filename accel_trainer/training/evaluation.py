"""How well a model does on a set of images, every one counted once whatever the number of processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from accel_trainer.data.loader import Batch, ImageReader, Loader
from accel_trainer.data.sampling import BatchPlan, TrainSampling, evaluation_batches, whole_batches
from accel_trainer.training.metrics import Meter
from accel_trainer.training.objectives import Objective


@dataclass(frozen=True)
class EvaluationSet:
    """Images and how they are cut into batches. `compares` tells an objective that compares the images of a batch:
    each batch, as large as in training, is then one process's."""

    read: ImageReader
    num_images: int
    images_per_batch: int
    examples_per_forward: int
    compares: bool
    seed: int

    def batches(self, rank: int, world_size: int) -> Iterator[BatchPlan]:
        if self.compares:
            return whole_batches(self.num_images, self.images_per_batch, rank, world_size, self.seed)
        return evaluation_batches(self.num_images, self.images_per_batch, rank, world_size)


def evaluation_set(
    read: ImageReader, num_images: int, sampling: TrainSampling, *, train_views: int, compares: bool
) -> EvaluationSet:
    """A set to evaluate on, in forward passes as large as a process's part of a training step.

    train_views: images that the model is shown of one in training.
    """
    views = read.views.num_views
    shown = max(1, sampling.images_per_step * train_views // sampling.world_size)
    return EvaluationSet(
        read=read,
        num_images=num_images,
        images_per_batch=sampling.images_per_step if compares else max(1, shown // views),
        examples_per_forward=max(1, shown // views) * read.views.examples_per_image,
        compares=compares,
        seed=sampling.seed,
    )


class Evaluator:
    """Measures plain models; ranks have different numbers of batches and do not meet."""

    def __init__(
        self, accelerator: Accelerator, loader: Loader, objective: Objective, prepare: Callable[[Tensor], Tensor]
    ) -> None:
        self.accelerator, self.loader, self.objective, self.prepare = accelerator, loader, objective, prepare

    def measure(self, model: nn.Module, on: EvaluationSet, is_stopped: Callable[[], bool]) -> Tensor:
        """This process's sums of the objective over its images; not all of them if it is stopped."""
        meter = Meter(self.accelerator.device, self.objective.num_sums)
        for batch, output in self.forward(model, on, is_stopped):
            meter.add(self.objective.judge(output, batch, is_shared=False).sums)
        return meter.sums

    def forward(
        self, model: nn.Module, on: EvaluationSet, is_stopped: Callable[[], bool]
    ) -> Iterator[tuple[Batch, Tensor]]:
        """This process's batches with what the model, in evaluation mode, gives for them."""
        accelerator = self.accelerator
        model.eval()
        for batch in self.loader.batches(on.read, on.batches(accelerator.process_index, accelerator.num_processes)):
            if is_stopped():
                return
            if not len(batch.labels):  # all corrupt
                continue
            inputs = self.prepare(batch.inputs.on(accelerator.device))
            with torch.inference_mode(), accelerator.autocast():
                outputs = [model(part) for part in inputs.split(on.examples_per_forward)]
                output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
            yield batch, output
