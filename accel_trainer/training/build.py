"""From a Job to everything that its training needs; and the same without values, to find mistakes early."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.config.derived import parameters
from accel_trainer.core import keyed_random
from accel_trainer.core.errors import UserError
from accel_trainer.data.augment.spectrum import Progress
from accel_trainer.data.batch_plan import TrainBatchPlanner, plan_training, possible_batch_sizes
from accel_trainer.data.dataset import Splits
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.open import open_images
from accel_trainer.data.pipeline import check_augmentations, training_spectrum, training_views
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.knn import KnnTest, knn_test
from accel_trainer.training.meta_model import count_parameters, cycle_axis, cycles_of, make_model, meta_model
from accel_trainer.training.objectives.base import Cycles, Objective
from accel_trainer.training.objectives.classification import ClassificationObjective
from accel_trainer.training.objectives.contrastive import ContrastiveObjective
from accel_trainer.training.optim.lr_schedule import LRSchedule, make_schedule
from accel_trainer.training.optim.optimizer import make_optimizer
from accel_trainer.training.optim.parameter_groups import freeze_modules_of
from accel_trainer.training.pretrained.starting_weights import check_starting_weights
from accel_trainer.training.state.starting_point import refuse_run_of_other_code
from accel_trainer.training.tracking import check_trackers
from accel_trainer.training.validation import EvaluationSet, validation_set, validation_views


@dataclass(frozen=True)
class TrainingData:
    """What a job is trained and validated on, for one number of processes."""

    images: Splits
    sampling: TrainBatchPlanner
    train_reader: ImageReader
    val: EvaluationSet
    eval_sets: Mapping[str, EvaluationSet]
    """More to validate on, by what performance.csv calls it."""
    knn: KnnTest


def training_data(
    job: ResolvedJob, world_size: int, *, augment_on_device: bool = False, progress: Progress = lambda done, total: None
) -> TrainingData:
    """Open the images of a job. Raises UserError.

    progress: called with the images seen so far, while the data set's spectrum is measured, where a job needs that.
    """
    images = open_images(job)
    sampling = plan_training(job, images, world_size)
    train_views = training_views(
        job, training_spectrum(job, lambda: images.train, progress), on_device=augment_on_device
    )
    views = validation_views(job, lambda: train_views, augment_on_device=augment_on_device)
    return TrainingData(
        images=images,
        sampling=sampling,
        train_reader=ImageReader(
            images.train, train_views, replace_corrupt=True, forbid_corrupt=job.corrupt_images == "forbid"
        ),
        val=validation_set(job, images.val, views, world_size),
        eval_sets={split: validation_set(job, source, views, world_size) for split, source in images.eval_sets.items()},
        knn=knn_test(job, images.train, images.val, world_size),
    )


# What decides which images a job sees.
DATA_KEYS = sorted(parameters(lambda mark: mark.decides_images))


@dataclass(frozen=True)
class Components(TrainingData):
    """What a training loop is made of."""

    model: nn.Module
    frozen: tuple[str, ...]
    """Names of modules that are not trained."""
    objective: Objective
    optimizer: Optimizer
    schedule: LRSchedule


def build(
    job: ResolvedJob, world_size: int, *, augment_on_device: bool = False, progress: Progress = lambda done, total: None
) -> Components:
    """Everything for training on `world_size` processes. Raises UserError. progress: as for `training_data`."""
    own = training_data(job, world_size, augment_on_device=augment_on_device, progress=progress)
    num_classes = len(own.images.classes)
    torch.manual_seed(keyed_random.key(job.seed, "initialization"))
    model = make_model(job, num_classes)
    objective = make_objective(job, num_classes, cycles_of(job, model, num_classes), cycle_axis(model))
    freeze_modules_of(job, model)
    optimizer = make_optimizer(job, model)
    return Components(
        **vars(own),
        model=model,
        frozen=job.frozen_modules,
        objective=objective,
        optimizer=optimizer,
        schedule=make_schedule(job, optimizer, own.sampling.steps_per_epoch),
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
    steps_per_epoch: int | None
    """None where the batch size is yet to be found."""
    num_epochs: int


def _check(job: Job, images: Splits, world_size: int) -> Summary:
    num_classes = len(images.classes)
    resolved = job.with_placeholders(possible_batch_sizes(job, images, world_size)[0])
    sampling = plan_training(resolved, images, world_size)
    model, num_cycles = meta_model(job, num_classes, sampling.images_per_forward)
    make_objective(job, num_classes, num_cycles, cycle_axis(model))
    check_augmentations(job)
    check_starting_weights(job, model)
    freeze_modules_of(job, model)
    make_schedule(
        resolved,
        make_optimizer(resolved, model),
        None if job.batch_size == "auto" else sampling.steps_per_epoch,
    )
    check_trackers(job)
    check_writable(job)
    refuse_run_of_other_code(job.checkpoint, RunFolder(job.run_path))
    return Summary(
        name=job.name,
        architecture=job.architecture,
        parameters=count_parameters(model),
        classes=num_classes,
        train_images=len(images.train.labels),
        val_images=len(images.val.labels),
        steps_per_epoch=None if job.batch_size == "auto" else sampling.steps_per_epoch,
        num_epochs=job.num_epochs,
    )


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


class JobChecker:
    """Checks jobs one after the other; jobs on one data set look through its folders once."""

    def __init__(self, on_images: Callable[[], None] = lambda: None) -> None:
        """on_images: called when a job's data set is known, before its model is looked at."""
        self._images: dict[str, Splits] = {}
        self._on_images = on_images

    def __call__(self, job: Job, world_size: int) -> Summary:
        """Build the job on the meta device, where nothing has a value. Raises UserError for what cannot work on
        so many processes."""
        key = repr([getattr(job, key) for key in DATA_KEYS])
        if key not in self._images:
            self._images[key] = open_images(job)
        self._on_images()
        return _check(job, self._images[key], world_size)


def make_objective(job: Job, num_classes: int, num_cycles: int, cycle_axis: int) -> Objective:
    """A job's objective for a model with so many cycles on an axis of its output. Raises UserError."""
    cycles = Cycles.choose(num_cycles, job.loss_cycle, cycle_axis)
    if job.is_contrastive:
        return ContrastiveObjective(job.criterion, job.criterion_args, job.num_views, cycles)
    return ClassificationObjective(job.criterion, job.criterion_args, num_classes, cycles)
