"""The images of a job: read, cut into batches, and shown to a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.data.augment.spectrum import Progress, mean_spectrum
from accel_trainer.data.batch_plan import TrainSampling, batch_sizes
from accel_trainer.data.dataset import ImageSet, Source
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.open import open_images
from accel_trainer.data.pipeline import evaluation_views, needs_spectrum, training_views
from accel_trainer.data.preview import draw_sheet
from accel_trainer.data.views import Views
from accel_trainer.training.evaluation import EvaluationSet, evaluation_set
from accel_trainer.training.neighbours import NeighbourTest


@dataclass(frozen=True)
class JobImages:
    """What a job is trained and validated on, for one number of processes."""

    images: ImageSet
    sampling: TrainSampling
    read_train: ImageReader
    val: EvaluationSet
    further: Mapping[str, EvaluationSet]
    """More to validate on, by what performance.csv calls it."""
    neighbours: NeighbourTest


def job_images(
    job: Job, world_size: int, *, augment_on_device: bool = False, progress: Progress = lambda done, total: None
) -> JobImages:
    """Open the images of a job. Raises UserError.

    progress: told of images seen while the data set's spectrum is measured, where a job needs that.
    """
    images = open_images(job)
    sampling = make_sampling(job, images, world_size)
    read_train = _training_reader(job, images.train, progress, augment_on_device=augment_on_device)
    views = validation_views(job, lambda: read_train.views, augment_on_device=augment_on_device)
    return JobImages(
        images=images,
        sampling=sampling,
        read_train=read_train,
        val=validation_set(job, images.val, views, world_size),
        further={split: validation_set(job, source, views, world_size) for split, source in images.further.items()},
        neighbours=neighbour_test(job, images.train, images.val, world_size),
    )


def validation_views(job: Job, train_views: Callable[[], Views], *, augment_on_device: bool) -> Views:
    """How a job sees images that it is validated on. A loss that compares views of an image sees them augmented as in
    training, always the same way; any other sees each image as it is."""
    return train_views() if job.is_contrastive else evaluation_views(job, on_device=augment_on_device)


def validation_set(job: Job, source: Source, views: Views, world_size: int) -> EvaluationSet:
    return evaluation_set(job, source, views, world_size, compares=job.is_contrastive)


def neighbour_test(job: Job, train: Source, val: Source, world_size: int) -> NeighbourTest:
    """train, val: of the same classes."""
    return NeighbourTest(
        bank=evaluation_set(job, train, evaluation_views(job), world_size, replace_corrupt=True),
        val=evaluation_set(job, val, evaluation_views(job), world_size),
        num_classes=len(train.classes),
        num_neighbours=job.knn_neighbours,
    )


def in_memory_format(job: Job, inputs: Tensor) -> Tensor:
    """Images in the memory format that the job asks for."""
    if job.channels_last and inputs.dim() == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


def preview(job: Job, *, epoch: int, progress: Progress = lambda done, total: None) -> bytes:
    """A picture of the first images of an epoch (PNG), as training will see them. Raises UserError."""
    images = open_images(job)
    job = job.on_paper(possible_batch_sizes(job, images, 1)[-1])
    return draw_sheet(_training_reader(job, images.train, progress), make_sampling(job, images, 1), epoch)


def _training_reader(job: Job, train: Source, progress: Progress, *, augment_on_device: bool = False) -> ImageReader:
    views = views_in_training(job, lambda: train, progress, augment_on_device=augment_on_device)
    return ImageReader(train, views, replace_corrupt=True)


def views_in_training(
    job: Job, train: Callable[[], Source], progress: Progress = lambda done, total: None, *, augment_on_device: bool
) -> Views:
    """How a job sees its training images, which are opened only if their spectrum is wanted. Raises UserError."""
    spectrum = mean_spectrum(job, train(), progress) if needs_spectrum(job) else None
    return training_views(job, spectrum, on_device=augment_on_device)


def possible_batch_sizes(job: Job, images: ImageSet, world_size: int) -> list[int]:
    """Those that "auto" chooses from, smallest first."""
    return batch_sizes(len(images.train.labels), job.num_views, world_size, job.gradient_accumulation)


def make_sampling(job: Job, images: ImageSet, world_size: int) -> TrainSampling:
    assert isinstance(job.batch_size, int), "'auto' is resolved before anything is built"
    return TrainSampling(
        num_images=len(images.train.labels),
        batch_size=job.batch_size,
        accumulation=job.gradient_accumulation,
        world_size=world_size,
        seed=job.seed,
        num_views=job.num_views,
    )
