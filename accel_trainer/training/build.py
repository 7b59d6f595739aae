"""From a Job to everything that its training needs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.config.derived import parameters
from accel_trainer.core import keyed_random
from accel_trainer.data.augment.spectrum import Progress
from accel_trainer.data.batch_plan import TrainBatchPlanner, plan_training
from accel_trainer.data.dataset import Splits
from accel_trainer.data.listing import Input
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.open import open_images
from accel_trainer.data.pipeline import inputs_of, training_spectrum, training_views
from accel_trainer.training.comparable import check_comparable
from accel_trainer.training.knn import KnnTest, knn_test
from accel_trainer.training.meta_model import cycle_axis, cycles_of, make_model
from accel_trainer.training.objectives.base import Cycles, Objective
from accel_trainer.training.objectives.classification import ClassificationObjective
from accel_trainer.training.objectives.contrastive import ContrastiveObjective
from accel_trainer.training.optim.lr_schedule import LRSchedule, make_schedule
from accel_trainer.training.optim.optimizer import make_optimizer
from accel_trainer.training.optim.parameter_groups import freeze_modules_of
from accel_trainer.training.runtime.kernels import store_weights
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
    inputs: Mapping[str, Input]
    """What the images are augmented with that comes from files."""


def training_data(
    job: ResolvedJob, world_size: int, *, augment_on_device: bool = False, progress: Progress = lambda done, total: None
) -> TrainingData:
    """Open the images of a job. Raises UserError.

    progress: called with the images seen so far, while the data set's spectrum is measured, where a job needs that.
    """
    images = open_images(job)
    sampling = plan_training(job, images, world_size)
    check_comparable(job, images, sampling)
    spectrum = training_spectrum(job, lambda: images.train, progress)
    train_views = training_views(job, spectrum, on_device=augment_on_device)
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
        inputs=inputs_of(job, train_views, spectrum),
    )


HOST = torch.device("cpu")
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
    job: ResolvedJob,
    world_size: int,
    *,
    device: torch.device = HOST,
    augment_on_device: bool = False,
    progress: Progress = lambda done, total: None,
) -> Components:
    """Everything for training on `world_size` processes. Raises UserError.

    device: that the model will be trained on; it stays on torch's default device. progress: as for `training_data`.
    """
    own = training_data(job, world_size, augment_on_device=augment_on_device, progress=progress)
    num_classes = len(own.images.classes)
    torch.manual_seed(keyed_random.key(job.seed, "initialization"))
    model = make_model(job, num_classes)
    store_weights(job, model, device)
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


def make_objective(job: Job, num_classes: int, num_cycles: int, cycle_axis: int) -> Objective:
    """A job's objective for a model with so many cycles on an axis of its output. Raises UserError."""
    cycles = Cycles.choose(num_cycles, job.loss_cycle, cycle_axis)
    if job.is_contrastive:
        return ContrastiveObjective(job.criterion, job.criterion_args, job.num_views, cycles)
    return ClassificationObjective(job.criterion, job.criterion_args, num_classes, cycles)
