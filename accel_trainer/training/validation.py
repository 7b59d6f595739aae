"""How well a model does on a set of images, every one counted once whatever the number of processes."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.core.spans import Phase, span, timed
from accel_trainer.data.batch_plan import BatchPlan, evaluation_batches, whole_batches
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.loader import Batch, ImageReader, Loader
from accel_trainer.data.pipeline import evaluation_views
from accel_trainer.data.views import Views
from accel_trainer.training.corrupt_images import corrupt_of_all
from accel_trainer.training.objectives.base import Meter, Objective

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationSet:
    """Images and how they are cut into batches.

    is_contrastive: the objective compares the images of a batch with each other. Each batch, of as many images as are
    compared in training, then belongs to one process.
    """

    reader: ImageReader
    num_images: int
    images_per_batch: int
    examples_per_forward: int
    is_contrastive: bool
    seed: int

    def batches(self, rank: int, world_size: int) -> Iterator[BatchPlan]:
        """The batches of one of `world_size` processes."""
        if self.is_contrastive:
            return whole_batches(self.num_images, self.images_per_batch, rank, world_size, self.seed, least=2)
        return evaluation_batches(self.num_images, self.images_per_batch, rank, world_size)


def evaluation_set(
    job: ResolvedJob,
    dataset: ImageDataset,
    views: Views,
    world_size: int,
    *,
    is_contrastive: bool = False,
    replace_corrupt: bool = False,
    forbid_corrupt: bool = False,
) -> EvaluationSet:
    """Images to evaluate on, in forward passes as large as those of a training step; here nothing needs to be divisible
    by the number of processes. By rules 1 of all micro-batches of the step together, as the last bits of the loss are
    theirs."""
    images_per_step = job.batch_size // job.num_views
    passes = world_size * (job.gradient_accumulation if job.rules >= 2 else 1)
    num_examples = max(1, images_per_step * job.views_per_image // passes)
    images = max(1, num_examples // views.num_views)
    return EvaluationSet(
        reader=ImageReader(dataset, views, replace_corrupt=replace_corrupt, forbid_corrupt=forbid_corrupt),
        num_images=len(dataset.labels),
        images_per_batch=images_per_step // job.gradient_accumulation if is_contrastive else images,
        examples_per_forward=images * views.examples_per_image,
        is_contrastive=is_contrastive,
        seed=job.seed,
    )


class Evaluator:
    """Evaluates plain models; ranks have different numbers of batches and do not synchronize."""

    def __init__(
        self, accelerator: Accelerator, loader: Loader, objective: Objective, prepare: Callable[[Tensor], Tensor]
    ) -> None:
        self.accelerator, self.loader, self.objective, self.prepare = accelerator, loader, objective, prepare

    def measure(self, model: nn.Module, eval_set: EvaluationSet, is_stopped: Callable[[], bool]) -> Tensor:
        """This process's sums of the objective over its images; not all of them if it is stopped."""
        meter = Meter(self.accelerator.device, self.objective.num_sums)
        for batch, output in self.forward(model, eval_set, is_stopped):
            with span(Phase.METRICS):
                meter.add(self.objective.compute(output, batch, is_shared=False).sums)
        return meter.sums

    def totals(self, sums: Tensor, reader: ImageReader) -> list[float]:
        """Sums of this process, added up over all, which call this together; corrupt images, if any, are logged. Raises
        UserError, on all, where they are too many."""
        totals, corrupt_images = self.reduce_sums(sums, reader)
        if corrupt_images and self.accelerator.is_main_process:
            log.warning("%d corrupt images skipped; each was named once", corrupt_images)
        reader.check_share()
        return totals

    def reduce_sums(self, sums: Tensor, reader: ImageReader) -> tuple[list[float], int]:
        """Sums of this process, added up over all, and how many corrupt images all have met; then each process knows
        those of all. Every process calls it."""
        corrupt = sums.new_tensor([len(reader.met)])
        *totals, corrupt_images = self.accelerator.reduce(torch.cat([sums, corrupt]), reduction="sum").tolist()
        if corrupt_images:
            reader.met |= corrupt_of_all(self.accelerator, reader.met, len(reader.source.labels))
        return totals, len(reader.met)

    def forward(
        self, model: nn.Module, eval_set: EvaluationSet, is_stopped: Callable[[], bool]
    ) -> Iterator[tuple[Batch, Tensor]]:
        """This process's batches with what the model, in evaluation mode, gives for them."""
        accelerator = self.accelerator
        model.eval()
        plans = eval_set.batches(accelerator.process_index, accelerator.num_processes)
        for batch in timed(self.loader.batches(eval_set.reader, plans)):
            if is_stopped():
                return
            if not len(batch.labels):  # all corrupt
                continue
            images = batch.inputs.on(accelerator.device)
            with span(Phase.FORWARD), torch.inference_mode(), accelerator.autocast():
                outputs = [model(part) for part in self.prepare(images).split(eval_set.examples_per_forward)]
                output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
            yield batch, output


def validation_views(job: Job, train_views: Callable[[], Views], *, augment_on_device: bool) -> Views:
    """How a job sees images that it is validated on. A loss that compares views of an image sees them augmented as in
    training, always the same way; any other sees each image as it is."""
    return train_views() if job.is_contrastive else evaluation_views(job, on_device=augment_on_device)


def validation_set(job: ResolvedJob, dataset: ImageDataset, views: Views, world_size: int) -> EvaluationSet:
    """A data set as the validation of a job takes it; views: see `validation_views`."""
    forbid = job.corrupt_images == "forbid"
    return evaluation_set(job, dataset, views, world_size, is_contrastive=job.is_contrastive, forbid_corrupt=forbid)
