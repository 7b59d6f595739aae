"""From a Job to everything that its training needs; and the same on paper, to find mistakes early."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from accel_trainer import randomness
from accel_trainer.config import Job
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.sampling import TrainSampling
from accel_trainer.data.sheet import draw_sheet
from accel_trainer.data.source import ImageSet, Source
from accel_trainer.data.sources import open_images
from accel_trainer.data.spectrum import Progress, mean_spectrum, read_spectrum
from accel_trainer.data.views import Views, evaluation_views, needs_spectrum, training_views
from accel_trainer.errors import UserError, first_line
from accel_trainer.training.evaluation import EvaluationSet, evaluation_set
from accel_trainer.training.neighbours import NeighbourTest
from accel_trainer.training.objectives import Objective, make_objective
from accel_trainer.training.outputs import by_cycle
from accel_trainer.training.schedule import Schedule, make_optimizer, make_schedule
from accel_trainer.training.summary import count_parameters
from accel_trainer.training.tracking import check_trackers
from accel_trainer.zoo import registry

# What decides which images a job sees.
DATA_KEYS = ("dataset", "data_root", "class_subset", "image_column", "label_column")


@dataclass(frozen=True)
class Parts:
    """What a training loop is made of."""

    images: ImageSet
    sampling: TrainSampling
    read_train: ImageReader
    val: EvaluationSet
    neighbours: NeighbourTest
    model: nn.Module
    frozen: tuple[str, ...]
    """Names of modules that are not trained."""
    objective: Objective
    optimizer: Optimizer
    schedule: Schedule


def build(
    job: Job, world_size: int, *, augment_on_device: bool = False, progress: Progress = lambda done, total: None
) -> Parts:
    """Everything for training on `world_size` processes. Raises UserError.

    progress: told of images seen while the data set's spectrum is measured, where a job needs that.
    """
    images = open_images(job)
    num_classes = len(images.classes)
    sampling = make_sampling(job, images, world_size)
    read_train = _training_reader(job, images, progress, augment_on_device=augment_on_device)
    torch.manual_seed(randomness.key(job.seed, "initialization"))
    model = make_model(job, num_classes)
    if job.channels_last:
        model = model.to(memory_format=torch.channels_last)
    objective = make_objective(job, num_classes, _num_cycles(job, paper_output(model, job), num_classes))
    optimizer = make_optimizer(job, model)
    return Parts(
        images=images,
        sampling=sampling,
        read_train=read_train,
        val=validation_set(job, images, sampling, read_train.views, augment_on_device=augment_on_device),
        neighbours=_neighbour_test(job, images, sampling),
        model=model,
        frozen=(),
        objective=objective,
        optimizer=optimizer,
        schedule=make_schedule(job, optimizer),
    )


def validation_set(
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


def make_model(job: Job, num_classes: int) -> nn.Module:
    if registry.takes_only_clips(job.architecture) and not job.video:
        raise UserError(f"architecture: {job.architecture} takes clips: set video to true, or use a model of images")
    return registry.build(job.architecture, job.architecture_args, num_classes=num_classes, image_size=job.image_size)


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


@dataclass(frozen=True)
class Summary:
    """What is known of a job without training it."""

    name: str
    architecture: str
    parameters: int
    classes: int
    train_images: int
    val_images: int
    steps_per_epoch: int
    num_epochs: int


def _check(job: Job, images: ImageSet, world_size: int) -> Summary:
    num_classes = len(images.classes)
    sampling = make_sampling(job, images, world_size)
    with torch.device("meta"):
        model, output = _model_on_paper(job, num_classes, sampling.images_per_forward)
    make_objective(job, num_classes, _num_cycles(job, output, num_classes))
    check_augmentations(job)
    make_schedule(job, make_optimizer(job, model))
    check_trackers(job)
    check_writable(job)
    return Summary(
        name=job.name,
        architecture=job.architecture,
        parameters=count_parameters(model),
        classes=num_classes,
        train_images=len(images.train.labels),
        val_images=len(images.val.labels),
        steps_per_epoch=sampling.steps_per_epoch,
        num_epochs=job.num_epochs,
    )


def check_augmentations(job: Job) -> None:
    """Find what is wrong with the files of augmentations, without measuring anything. Raises UserError."""
    if needs_spectrum(job) and job.Noise is not None and job.Noise.mean_magnitude_path is not None:
        read_spectrum(Path(job.Noise.mean_magnitude_path).expanduser(), job.image_size)
    training_views(job, None)


def check_writable(job: Job) -> None:
    """Refuse a model_dir that cannot be made or written in. Raises UserError."""
    folder = job.run_path.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"model_dir: {job.run_path}: {folder} is a file")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"model_dir: cannot write to {job.run_path}: {error.strerror} in {folder}") from error


def _model_on_paper(job: Job, num_classes: int, num_images: int) -> tuple[nn.Module, Any]:
    """The model on the meta device, and what it gives for a batch of the job's size: its shapes are right, or a
    UserError."""
    try:
        model = make_model(job, num_classes)
    except NotImplementedError:
        # RegNets compute their widths with tensors, which the meta device cannot do.
        with torch.device("cpu"):
            model = make_model(job, num_classes)
    num_examples = num_images if job.video else num_images * job.views_per_image
    try:
        return model, paper_output(model, job, num_examples)
    except (RuntimeError, AssertionError, ValueError) as error:
        if num_examples == 1 and "more than 1 value per channel" in str(error):
            raise UserError(
                f"batch_size: {job.architecture} has BatchNorm, which needs more than one image for each process "
                "and accumulation step"
            ) from error
        if job.video:
            raise UserError(
                f"video: {job.architecture} does not take clips of {job.views_per_image} frames "
                f"(batch, frames, 3, {job.image_size}, {job.image_size}): {first_line(error)}"
            ) from error
        raise UserError(
            f"image_size: {job.architecture} does not work with images of {job.image_size} pixels: {first_line(error)}"
        ) from error


def paper_output(model: nn.Module, job: Job, num_examples: int = 2) -> Any:
    """What a model in training gives for a batch of at most two examples, on the meta device: shapes, no values.

    The model itself is not run, and its BatchNorm statistics stay as they are.
    """
    frames = (job.views_per_image,) if job.video else ()
    state = {name: t.to("meta") for name, t in (*model.named_parameters(), *model.named_buffers())}
    model.train()
    with torch.no_grad(), torch.device("meta"):
        inputs = torch.empty(min(num_examples, 2), *frames, 3, job.image_size, job.image_size)
        return torch.func.functional_call(model, state, (inputs,))


def _num_cycles(job: Job, output: Any, num_classes: int) -> int:
    """How many cycles a model gives logits of. Raises UserError for an output that cannot be trained."""
    try:
        logits = by_cycle(output)
    except (AttributeError, ValueError) as error:
        raise UserError(f"architecture: {job.architecture}: {first_line(error)}") from error
    if not job.is_contrastive and logits.shape[-1] != num_classes:
        raise UserError(
            f"architecture: {job.architecture} gives {logits.shape[-1]} logits for {num_classes} classes; "
            "let it take num_classes"
        )
    return logits.shape[1]


class Checker:
    """Checks jobs one after the other; jobs on one data set look through its folders once."""

    def __init__(self) -> None:
        self._images: dict[str, ImageSet] = {}

    def __call__(self, job: Job, world_size: int) -> Summary:
        """Build the job on the meta device, where nothing has a value. Raises UserError for what cannot work on
        so many processes."""
        key = repr([getattr(job, key) for key in DATA_KEYS])
        if key not in self._images:
            self._images[key] = open_images(job)
        return _check(job, self._images[key], world_size)


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Only kernels that give the same bits every time, where the job asks for it."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if wanted:
            torch.use_deterministic_algorithms(False)
