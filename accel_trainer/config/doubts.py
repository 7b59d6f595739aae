"""What a job says and can hardly mean: it would train, but not as its author thinks. The table is `DOUBTS`.

Each is a function of the job and of what is known of it without training; it says nothing where it cannot know.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from accel_trainer.config.fields import transform_parts
from accel_trainer.config.job import Job
from accel_trainer.core.errors import Problem

# From how many times the right number on a number is far from it.
FAR = 1.25
# Shares of a class by chance and better, in percent, from which on a metric says little: of five classes acc5 is 100.
TOP = 5
# Learning rates that are usual for an optimizer, at most.
HIGHEST_RATES = {"Adam": 0.02, "AdamW": 0.02, "NAdam": 0.02, "RAdam": 0.02, "Adamax": 0.05, "SGD": 20.0}


@dataclass(frozen=True)
class Known:
    """What is known of a job without training it; None where it is not known.

    steps_per_epoch: optimizer steps. cycles: of how many cycles the model gives logits or embeddings.
    """

    num_classes: int | None = None
    train_images: int | None = None
    steps_per_epoch: int | None = None
    cycles: int | None = None


def doubts(job: Job, known: Known) -> list[Problem]:
    """What can hardly be meant in a job that could be trained: the parameter, what comes of it, and a cure."""
    return [found for doubt in DOUBTS for found in doubt(job, known)]


Doubt = Callable[[Job, Known], Iterator[Problem]]


def _number(args: dict[str, Any], name: str) -> float | None:
    value = args.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _warmup_epochs(job: Job) -> float:
    if job.warmup_scheduler is None:
        return 0
    return _number(job.warmup_scheduler_args, "total_iters") or 0


def _by_epoch(job: Job) -> bool:
    return job.schedule_by == "epoch"


def _length(job: Job, known: Known) -> float | None:
    """How often the main scheduler steps in the whole training, after the warm-up."""
    if _by_epoch(job):
        return job.num_epochs - _warmup_epochs(job)
    return None if known.steps_per_epoch is None else known.steps_per_epoch * job.num_epochs - _warmup_epochs(job)


def _unit(job: Job) -> str:
    return "epochs" if _by_epoch(job) else "optimizer steps"


def steps_that_never_come(job: Job, known: Known) -> Iterator[Problem]:
    """StepLR(30) in 8 epochs; milestones after the end."""
    length, args = _length(job, known), job.scheduler_args
    if length is None or not (job.says("scheduler") or job.says("scheduler_args")):
        return  # a short training without a word of a schedule has a constant rate, and that is usual
    step_size, milestones = _number(args, "step_size"), args.get("milestones")
    if job.scheduler == "StepLR" and step_size is not None and step_size >= length:
        message = f"{step_size:g} {_unit(job)} are not reached in {length:g}: the learning rate never falls"
        smaller = f"{int(length) // 3}, or " if length >= 3 else ""
        hint = f"use {smaller}ConstantLR, which is flat on purpose"
        yield Problem(message, key="scheduler_args.step_size", hint=hint)
    if job.scheduler == "MultiStepLR" and isinstance(milestones, list):
        late = [one for one in milestones if isinstance(one, int) and one >= length]
        if late:
            message = f"{late} are not reached in {length:g} {_unit(job)}"
            yield Problem(message, key="scheduler_args.milestones", hint="the learning rate does not fall there")


def cosine_of_another_length(job: Job, known: Known) -> Iterator[Problem]:
    """CosineAnnealingLR goes up again after T_max, and is not down before."""
    length, t_max = _length(job, known), _number(job.scheduler_args, "T_max")
    if job.scheduler != "CosineAnnealingLR" or length is None or t_max is None or length <= 0 or t_max <= 0:
        return
    if t_max * FAR < length:
        message = f"{t_max:g} of {length:g} {_unit(job)}: after it the learning rate rises again"
    elif length * FAR < t_max:
        message = f"{t_max:g}, but there are {length:g} {_unit(job)}: the learning rate does not come down"
    else:
        return
    hint = f"for one descent use {length:g}" + (", what the warm-up leaves" if _warmup_epochs(job) else "")
    yield Problem(message, key="scheduler_args.T_max", hint=hint)


def plateau_without_time(job: Job, known: Known) -> Iterator[Problem]:
    """ReduceLROnPlateau whose patience is as long as the training."""
    patience = _number(job.scheduler_args, "patience")
    patience = 10 if patience is None else patience
    length = job.num_epochs - _warmup_epochs(job)
    if job.scheduler == "ReduceLROnPlateau" and patience + 1 >= length > 0:
        message = f"{patience:g} epochs without an improvement do not fit into {length:g}: the rate never falls"
        yield Problem(message, key="scheduler_args.patience", hint="use a smaller one")


def decay_to_nothing(job: Job, known: Known) -> Iterator[Problem]:
    """ExponentialLR with a factor for steps, taken per epoch: nothing is learnt after a few."""
    length, gamma = _length(job, known), _number(job.scheduler_args, "gamma")
    if job.scheduler == "ExponentialLR" and length is not None and gamma is not None and 0 < gamma < 1:
        last = gamma ** max(0.0, length - 1)
        if last < 1e-8:
            message = f"{gamma:g} leaves {last:.0e} of the learning rate after {length:g} {_unit(job)}"
            yield Problem(message, key="scheduler_args.gamma", hint="use one nearer to 1")


def warmup_longer_than_training(job: Job, known: Known) -> Iterator[Problem]:
    """A warm-up that takes all epochs, or more."""
    length = _length(job, known)
    if (warmup := _warmup_epochs(job)) and length is not None and length <= 0:
        message = f"a warm-up of {warmup:g} {_unit(job)} leaves none of {warmup + length:g} to {job.scheduler}"
        yield Problem(message, key="warmup_scheduler_args.total_iters", hint="warm up for a part of the training")


def cycles_that_are_not_there(job: Job, known: Known) -> Iterator[Problem]:
    """loss_cycle for a network that gives one output."""
    if job.loss_cycle == "uniform" and known.cycles == 1:
        message = f"{job.architecture} gives logits once, and not in several cycles: the mean of one loss is that loss"
        hint = "remove it, or have the model give all of its cycles (of the zoo's: return_cycles)"
        yield Problem(message, key="loss_cycle", hint=hint)


def metric_that_is_always_full(job: Job, known: Known) -> Iterator[Problem]:
    """acc5 of five classes."""
    if job.primary_metric == "acc5" and known.num_classes is not None and known.num_classes <= TOP:
        message = f"of {known.num_classes} classes one is always among the first five: every epoch has 100%"
        yield Problem(message, key="primary_metric", hint="use acc1")


def intervals_that_never_come(job: Job, known: Known) -> Iterator[Problem]:
    """save_interval and knn_interval longer than the training."""
    if job.save_interval is not None and job.save_interval > job.num_epochs:
        message = (
            f"every {job.save_interval} epochs never comes in {job.num_epochs}: only the best and the last are kept"
        )
        yield Problem(message, key="save_interval", hint="use a smaller one, or remove it")
    if job.knn_interval > job.num_epochs and job.says("knn_interval"):
        message = f"every {job.knn_interval} epochs never comes in {job.num_epochs}: there is one test, at the end"
        yield Problem(message, key="knn_interval", hint="use a smaller one")


def averages_of_almost_nothing(job: Job, known: Known) -> Iterator[Problem]:
    """SWA over the last epoch alone, or annealed for longer than it lasts; an EMA that remembers the start."""
    swa = job.swa
    if swa is not None and swa.start == job.num_epochs and job.num_epochs > 1:
        message = f"{swa.start} is the last epoch: the average is that of one epoch's weights"
        yield Problem(message, key="swa.start", hint="start earlier, usually after three quarters")
    if swa is not None and swa.swa_lr is not None and swa.start < job.num_epochs < swa.start + swa.anneal_epochs:
        message = (
            f"{swa.anneal_epochs} epochs from {swa.start} on end after epoch {job.num_epochs}: swa_lr is not reached"
        )
        yield Problem(message, key="swa.anneal_epochs", hint="anneal for fewer epochs, or start earlier")
    if job.ema is not None and known.steps_per_epoch is not None:
        num_steps = known.steps_per_epoch * job.num_epochs
        if (left := job.ema**num_steps) > 0.1:
            message = f"after {num_steps:,} steps {left:.0%} of the average are still the random weights of the start"
            yield Problem(message, key="ema", hint=f"use a smaller one, such as {max(0.5, 1 - 10 / num_steps):.3g}")


def labels_blurred_twice(job: Job, known: Known) -> Iterator[Problem]:
    """Label smoothing on top of labels that are mixed."""
    smoothing = _number(job.criterion_args, "label_smoothing")
    mixing = [key for key in ("cutmix", "mixup") if getattr(job, key) is not None]
    if smoothing and mixing:
        message = f"{smoothing:g} beside {' and '.join(mixing)}: the labels are softened twice"
        yield Problem(message, key="criterion_args.label_smoothing", hint="keep one, unless both are meant")


def rates_beyond_use(job: Job, known: Known) -> Iterator[Problem]:
    """SGD's learning rate for Adam; batch_linear, which is a rate of 8 at 256 images, for anything."""
    rate = _number(job.optimizer_args, "lr")
    highest = HIGHEST_RATES.get(job.optimizer)
    if highest is not None and rate is not None and rate > highest:
        message = f"{rate:g} is far above what {job.optimizer} can learn with"
        hint = "0.001 is usual" if job.optimizer != "SGD" else "0.1 is usual"
        yield Problem(message, key="optimizer_args.lr", hint=hint)
    if job.optimizer_args.get("lr") == "batch_linear" and isinstance(job.batch_size, int) and highest is not None:
        found = job.batch_size / 2**5
        if found > highest or (job.optimizer == "SGD" and found >= 1):
            message = f"batch_linear is {found:g} for a batch_size of {job.batch_size}"
            yield Problem(message, key="optimizer_args.lr", hint="batch_nonlinear, or a number, is more usual")


def nothing_but_one_batch(job: Job, known: Known) -> Iterator[Problem]:
    """An epoch of one or two steps: BatchNorm, schedules and averages see next to nothing."""
    if isinstance(job.batch_size, int) and known.steps_per_epoch is not None and known.train_images is not None:
        left_out = known.train_images * job.num_views - known.steps_per_epoch * job.batch_size
        share = left_out / (known.train_images * job.num_views)
        if known.steps_per_epoch < 5 and share > 0.2:
            message = f"{job.batch_size} leaves {share:.0%} of the training images out of each epoch"
            yield Problem(
                message, key="batch_size", hint="the last, incomplete batch is not trained on; use a smaller one"
            )


def views_without_a_difference(job: Job, known: Known) -> Iterator[Problem]:
    """Contrastive losses of views that are alike."""
    base = transform_parts(job.transform_type)[0]
    if not job.is_contrastive:
        return
    if job.view_dependence:
        message = f"the views of an image share their draws: {job.criterion} compares equal images"
        yield Problem(message, key="view_dependence", hint="set it to false")
    elif base == "none" and all(getattr(job, key) is None for key in ("Noise", "Blur", "Occlusion", "randomerase")):
        message = f"without augmentation all views of an image are equal, and {job.criterion} compares them"
        yield Problem(message, key="transform_type", hint="use contrastive")
    elif base == "default":
        message = f"{job.criterion} with crops and flips alone learns color histograms (Chen et al. 2020)"
        yield Problem(message, key="transform_type", hint="use contrastive")


def occluders_that_do_nothing(job: Job, known: Known) -> Iterator[Problem]:
    """An augmentation that is written down, and off."""
    occlusion = job.Occlusion
    if occlusion is not None and occlusion.probability == 0:
        yield Problem("0: no image is occluded", key="Occlusion.probability", hint="remove Occlusion, or use another")
    if occlusion is not None and occlusion.visibility == [100]:
        yield Problem("all of the image stays visible: nothing is occluded", key="Occlusion.visibility")
    if job.Blur is not None and not any(job.Blur.sigmas):
        yield Problem("0: no image is blurred", key="Blur.sigmas", hint="remove Blur, or use another")
    if job.Noise is not None and all(ssnr == 1 for ssnr in job.Noise.ssnrs):
        yield Problem("1: there is no noise", key="Noise.ssnrs", hint="remove Noise, or use a smaller one")


def one_class(job: Job, known: Known) -> Iterator[Problem]:
    """A classification with nothing to tell apart."""
    if known.num_classes == 1 and not job.is_contrastive:
        key = "dataset" if job.class_subset is None else "class_subset"
        yield Problem("there is one class: every answer is right", key=key, hint="name two or more classes")


def weights_of_another_start(job: Job, known: Known) -> Iterator[Problem]:
    """What a fine-tuning says and cannot do."""
    if job.finetuning is not None and job.checkpoint is not None and job.checkpoint > 0:
        message = f"{job.checkpoint} starts from that epoch of this run, and not from starting_params"
        yield Problem(message, key="checkpoint", hint="remove it, unless the run is there already")


DOUBTS: tuple[Doubt, ...] = (
    steps_that_never_come,
    cosine_of_another_length,
    plateau_without_time,
    decay_to_nothing,
    warmup_longer_than_training,
    cycles_that_are_not_there,
    metric_that_is_always_full,
    intervals_that_never_come,
    averages_of_almost_nothing,
    labels_blurred_twice,
    rates_beyond_use,
    nothing_but_one_batch,
    views_without_a_difference,
    occluders_that_do_nothing,
    one_class,
    weights_of_another_start,
)
"""In the order in which they are said."""
