"""All mistakes of a job that can be found without training it: it is built on the meta device, where nothing has a
value. What several jobs have in common is looked at once."""

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.config.derived import parameters
from accel_trainer.config.marks import Affects
from accel_trainer.core.errors import UserError
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.core.text import canonical
from accel_trainer.data.batch_plan import TrainBatchPlanner, plan_training, possible_batch_sizes
from accel_trainer.data.dataset import Splits
from accel_trainer.data.open import check_eval_sets, open_images
from accel_trainer.data.pipeline import check_augmentations
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.rules import as_its_run_goes_on
from accel_trainer.training.build import DATA_KEYS, make_objective
from accel_trainer.training.comparable import check_comparable
from accel_trainer.training.determinism import operations_without_order
from accel_trainer.training.meta_model import count_parameters, cycle_axis, meta_model
from accel_trainer.training.optim.first_step import check_first_step
from accel_trainer.training.optim.lr_schedule import make_schedule
from accel_trainer.training.optim.optimizer import construct_optimizer, make_optimizer, with_rate_for_batch
from accel_trainer.training.optim.parameter_groups import freeze_modules_of
from accel_trainer.training.optim.settings import Course, optimizer_line, schedule_line
from accel_trainer.training.pretrained.starting_weights import check_starting_weights
from accel_trainer.training.state.starting_point import refuse_anchor, refuse_doubled_folder, refuse_run_of_other_code
from accel_trainer.training.tracker_checks import check_trackers
from accel_trainer.zoo import registry, timm_models

# On what the model, its images and its training depend, beside the data set; what is only named is not looked at.
MODEL_KEYS = sorted(parameters(lambda mark: mark.affects is Affects.MODEL and mark.is_checked))
IMAGE_KEYS = sorted(parameters(lambda mark: mark.affects is Affects.DATA))
OPTIMIZATION_KEYS = sorted(parameters(lambda mark: mark.affects is Affects.OPTIMIZATION and mark.is_checked))
# How many models, and how many verdicts of a kind, are kept.
MOST_MODELS, MOST_VERDICTS = 4, 10_000
# In place of what is not known, because another parameter is wrong: classes, and images of a forward pass.
USUAL_CLASSES, FEW_IMAGES = 1000, 2


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
    cycles: int
    """Of how many cycles the model gives logits, or embeddings."""
    optimizer: str
    """With all its settings."""
    schedule: str
    """With its rates at the start, after a quarter, half and three quarters of the epochs, and in the last."""
    rates: Sequence[float] | None = None
    """Learning rates over the training, as `Course.sampled_rates` gives them."""
    without_order: Sequence[str] = ()
    """Of a deterministic job: what has no kernel on a GPU that gives the same bits every time, in words."""
    data: Sequence[str] = ()
    """What there is to say of the data set: its splits, what was left out."""


class JobChecker:
    """Checks jobs one after the other. Jobs on one data set look through its folders once, jobs with one model build it
    once, and what has been found right in one job is not looked at again in the next."""

    def __init__(self, on_images: Callable[[], None] = lambda: None) -> None:
        """on_images: called when a job's data set is known, before its model is looked at."""
        self._images: dict[str, Splits] = {}
        self._on_images = on_images
        self._models: OrderedDict[str, tuple[nn.Module, int]] = OrderedDict()
        self._right: set[str] = set()

    def __call__(self, job: Job, world_size: int) -> Summary:
        """Build the job on the meta device, where nothing has a value. Raises UserError for what cannot work on
        so many processes, with all mistakes that do not follow from each other. A run that is there goes on by its own
        rules, so it is looked at by these."""
        mistakes = Mistakes()
        given_job = job
        job = mistakes.of(lambda: as_its_run_goes_on(given_job, RunFolder(given_job.run_path))) or given_job
        images = mistakes.of(lambda: self.images(job))
        if images is None:
            mistakes.of(lambda: check_eval_sets(job))
        self._on_images()
        planned = None if images is None else mistakes.of(lambda: _plan(job, images, world_size))
        if images is not None and planned is not None:
            mistakes.of(lambda: check_comparable(job, images, planned[1]))
        given = job.architecture_args.get("num_classes")
        num_classes = len(images.classes) if images is not None else given if type(given) is int else USUAL_CLASSES
        num_images = FEW_IMAGES if planned is None else planned[1].images_per_forward
        built = mistakes.of(lambda: self._model(job, num_classes, num_images))
        mistakes.of(lambda: _check_objective(job, num_classes, built))
        self._once(mistakes, job, "images", IMAGE_KEYS, lambda: check_augmentations(job))
        if built is not None:
            model = deepcopy(built[0]) if job.frozen_modules else built[0]
            mistakes.of(lambda: check_starting_weights(job, model))
            resolved = job.with_placeholders(_any_batch_size(job)) if planned is None else planned[0]
            if mistakes.of(lambda: _freeze(job, model)):
                keys = [*MODEL_KEYS, *OPTIMIZATION_KEYS]
                steps = None if planned is None or job.batch_size == "auto" else planned[1].steps_per_epoch
                what = f"training of {num_classes} classes in {steps} steps per epoch"
                self._once(mistakes, job, what, keys, lambda: _check_training(resolved, model, steps))
        else:
            mistakes.of(lambda: _check_names(job))
        mistakes.of(lambda: check_trackers(job))
        mistakes.of(lambda: check_writable(job))
        mistakes.of(lambda: refuse_anchor(RunFolder(job.run_path)))
        mistakes.of(lambda: refuse_run_of_other_code(job.checkpoint, RunFolder(job.run_path)))
        mistakes.of(lambda: refuse_doubled_folder(job, RunFolder(job.run_path)))
        if mistakes.found or images is None or planned is None or built is None:
            raise UserError(*mistakes.found)
        steps_per_epoch = None if job.batch_size == "auto" else planned[1].steps_per_epoch
        optimization = _Optimization(job, steps_per_epoch)
        optimizer, schedule = optimization.lines()
        return Summary(
            name=job.name,
            architecture=job.architecture,
            parameters=count_parameters(built[0]),
            classes=num_classes,
            train_images=len(images.train.labels),
            val_images=len(images.val.labels),
            steps_per_epoch=steps_per_epoch,
            num_epochs=job.num_epochs,
            data=list(images.notes),
            cycles=built[1],
            optimizer=optimizer,
            schedule=schedule,
            rates=optimization.rates(),
            without_order=_without_order(job, num_classes, *built) if job.deterministic else (),
        )

    def images(self, job: Job) -> Splits:
        """What a job is trained and validated on, opened once. Raises UserError."""
        key = repr([getattr(job, key) for key in DATA_KEYS])
        if key not in self._images:
            self._images[key] = open_images(job)
        return self._images[key]

    def _model(self, job: Job, num_classes: int, num_images: int) -> tuple[nn.Module, int]:
        """The model, and of how many cycles it gives logits; one for all jobs that have the same, unless others have
        written it, who may give another at any time."""
        if registry.is_others(job.architecture) and not job.architecture.startswith(timm_models.PREFIX):
            return meta_model(job, num_classes, num_images)
        shape = [job.rules, job.image_size, job.video, job.views_per_image, job.channels_last, job.is_contrastive]
        wanted = [job.architecture, job.architecture_args, job.pretrained, *shape, num_classes, min(num_images, 2)]
        key = canonical(wanted)
        if key not in self._models:
            self._models[key] = meta_model(job, num_classes, num_images)
        self._models.move_to_end(key)
        while len(self._models) > MOST_MODELS:
            self._models.popitem(last=False)
        return self._models[key]

    def _once(self, mistakes: "Mistakes", job: Job, what: str, keys: list[str], look: Callable[[], None]) -> None:
        """Look at a job, unless one that is the same in all these parameters was right."""
        values = job.model_dump(mode="json", include=set(keys))
        key = canonical([what, values])
        if key in self._right:
            return
        if mistakes.is_right(look) and len(self._right) < MOST_VERDICTS:
            self._right.add(key)


def _plan(job: Job, images: Splits, world_size: int) -> tuple[ResolvedJob, TrainBatchPlanner]:
    resolved = job.with_placeholders(possible_batch_sizes(job, images, world_size)[0])
    return resolved, plan_training(resolved, images, world_size)


def _any_batch_size(job: Job) -> int:
    return job.num_views * job.gradient_accumulation


def _check_objective(job: Job, num_classes: int, built: tuple[nn.Module, int] | None) -> None:
    """Without a model only what does not depend on its cycles. Raises UserError."""
    mistakes = Mistakes()
    mistakes.of(lambda: make_objective(job.model_copy(update={"loss_cycle": None}), num_classes, 1, 1))
    if built is not None:
        mistakes.of(lambda: make_objective(job, num_classes, built[1], cycle_axis(built[0])))
    mistakes.raise_found()


def _freeze(job: Job, model: nn.Module) -> bool:
    freeze_modules_of(job, model)
    return True


def _check_training(resolved: ResolvedJob, model: nn.Module, steps_per_epoch: int | None) -> None:
    """The optimizer and the schedule; where there is no such optimizer, the schedule of another one."""
    mistakes = Mistakes()
    optimizer, given = mistakes.of(lambda: make_optimizer(resolved, model)), resolved
    mistakes.of(lambda: check_first_step(given, [p for p in model.parameters() if p.requires_grad]))
    if optimizer is None:
        resolved = resolved.model_copy(update={"optimizer": "SGD", "optimizer_args": {"lr": 0.1, "momentum": 0.9}})
        resolved = resolved.model_copy(update={"layer_decay": None, "decay_norm_and_bias": True})
        optimizer = make_optimizer(resolved, nn.Linear(2, 2, device="meta"))
    mistakes.of(lambda: make_schedule(resolved, optimizer, steps_per_epoch))
    mistakes.raise_found()


def _without_order(job: Job, num_classes: int, model: nn.Module, cycles: int) -> Sequence[str]:
    """As `operations_without_order`; nothing where others' code cannot be looked at without values."""
    objective = make_objective(job, num_classes, cycles, cycle_axis(model))
    try:
        return operations_without_order(job, model, objective)
    except Exception:
        if not registry.is_others(job.architecture):
            raise
        return ()


def _check_names(job: Job) -> None:
    """The optimizer and the schedule, where there is no model: over another one."""
    changes = {"layer_decay": None, "finetune": False}
    resolved = job.model_copy(update=changes).with_placeholders(_any_batch_size(job))
    _check_training(resolved, nn.Linear(2, 2, device="meta"), None)


def optimization_lines(job: Job) -> list[str]:
    """The optimizer with all its settings, and the schedule with its rates, of a job whose model and images may be
    missing: without the images, the steps of an epoch are not known. Raises UserError."""
    steps_per_epoch = None
    if job.schedule_by == "step" and job.batch_size != "auto":
        with suppress(UserError, OSError):
            resolved = job.with_placeholders(_any_batch_size(job))
            steps_per_epoch = plan_training(resolved, open_images(job), 1).steps_per_epoch
    return _Optimization(job, steps_per_epoch).lines()


def learning_rates(job: Job, steps_per_epoch: int | None) -> list[float] | None:
    """Learning rates over the training of a job, as `Course.sampled_rates` gives them."""
    return _Optimization(job, steps_per_epoch).rates()


class _Optimization:
    """A job's optimizer, over other parameters, and the course of its learning rate, which is looked at once."""

    def __init__(self, job: Job, steps_per_epoch: int | None) -> None:
        self._job = with_rate_for_batch(job)
        resolved = self._job.with_placeholders(_any_batch_size(job))
        parameters = [torch.zeros(2, 2, requires_grad=True, device="cpu")]
        self._optimizer = construct_optimizer(resolved, [{"params": parameters}])
        self._course = Course(self._job, self._optimizer, steps_per_epoch)

    def lines(self) -> list[str]:
        return [optimizer_line(self._job, self._optimizer), schedule_line(self._job, self._course)]

    def rates(self) -> list[float] | None:
        return self._course.sampled_rates()


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
