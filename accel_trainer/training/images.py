"""The images of a job: read, cut into batches, and shown to a model."""

from dataclasses import dataclass

from accel_trainer.config import Job
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.sampling import TrainSampling
from accel_trainer.data.sheet import draw_sheet
from accel_trainer.data.source import ImageSet, Source
from accel_trainer.data.sources import open_images
from accel_trainer.data.spectrum import Progress, mean_spectrum
from accel_trainer.data.views import Views, evaluation_views, needs_spectrum, training_views
from accel_trainer.training.evaluation import EvaluationSet, evaluation_set
from accel_trainer.training.neighbours import NeighbourTest


@dataclass(frozen=True)
class JobImages:
    """What a job is trained and validated on, for one number of processes."""

    images: ImageSet
    sampling: TrainSampling
    read_train: ImageReader
    val: EvaluationSet
    neighbours: NeighbourTest


def job_images(
    job: Job, world_size: int, *, augment_on_device: bool = False, progress: Progress = lambda done, total: None
) -> JobImages:
    """Open the images of a job. Raises UserError.

    progress: told of images seen while the data set's spectrum is measured, where a job needs that.
    """
    images = open_images(job)
    sampling = make_sampling(job, images, world_size)
    read_train = _training_reader(job, images, progress, augment_on_device=augment_on_device)
    return JobImages(
        images=images,
        sampling=sampling,
        read_train=read_train,
        val=_validation_set(job, images, sampling, read_train.views, augment_on_device=augment_on_device),
        neighbours=_neighbour_test(job, images, sampling),
    )


def _validation_set(
    job: Job, images: ImageSet, sampling: TrainSampling, train_views: Views, *, augment_on_device: bool
) -> EvaluationSet:
    """The validation images. A loss that compares views of an image sees them augmented as in training, always the
    same way; any other sees each image as it is."""
    views = train_views if job.is_contrastive else evaluation_views(job, on_device=augment_on_device)
    read = ImageReader(images.val, views, replace_corrupt=False)
    return evaluation_set(
        read, len(images.val.labels), sampling, train_views=train_views.num_views, compares=job.is_contrastive
    )


def _neighbour_test(job: Job, images: ImageSet, sampling: TrainSampling) -> NeighbourTest:
    def plain(source: Source, *, replace_corrupt: bool) -> EvaluationSet:
        read = ImageReader(source, evaluation_views(job), replace_corrupt=replace_corrupt)
        return evaluation_set(read, len(source.labels), sampling, train_views=job.views_per_image, compares=False)

    return NeighbourTest(
        bank=plain(images.train, replace_corrupt=True),
        val=plain(images.val, replace_corrupt=False),
        num_classes=len(images.classes),
        num_neighbours=job.knn_neighbours,
    )


def preview(job: Job, *, epoch: int, progress: Progress = lambda done, total: None) -> bytes:
    """A picture of the first images of an epoch (PNG), as training will see them. Raises UserError."""
    images = open_images(job)
    return draw_sheet(_training_reader(job, images, progress), make_sampling(job, images, 1), epoch)


def _training_reader(job: Job, images: ImageSet, progress: Progress, *, augment_on_device: bool = False) -> ImageReader:
    spectrum = mean_spectrum(job, images.train, progress) if needs_spectrum(job) else None
    views = training_views(job, spectrum, on_device=augment_on_device)
    return ImageReader(images.train, views, replace_corrupt=True)


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
