"""What a job says and can hardly mean: it would train, but not as its author thinks. The table is `DOUBTS`.

Each is a function of the job and of what is known of it without training; it says nothing where it cannot know.
"""

from collections.abc import Iterator, Sequence

from accel_trainer.config.fields import transform_parts
from accel_trainer.config.job import Job
from accel_trainer.config.known import Doubt, Known, number_in
from accel_trainer.config.schedule_doubts import SCHEDULE_DOUBTS
from accel_trainer.core.errors import Problem
from accel_trainer.core.text import listed

# Shares of a class by chance and better, in percent, from which on a metric says little: of five classes acc5 is 100.
TOP = 5
# Label smoothing that published recipes have beside CutMix and MixUp is 0.1.
MOST_SMOOTHING = 0.3
# What helps where a model has operations that `deterministic` refuses on a GPU.
INSTEAD_OF_DETERMINISTIC = "leave it out (all else keeps its bits), train on a CPU, or use another model"
# Learning rates that are usual for an optimizer, at most.
HIGHEST_RATES = {"Adam": 0.02, "AdamW": 0.02, "NAdam": 0.02, "RAdam": 0.02, "Adamax": 0.05, "SGD": 20.0}


def doubts(job: Job, known: Known) -> list[Problem]:
    """What can hardly be meant in a job that could be trained: the parameter, what comes of it, and a cure."""
    return [found for doubt in DOUBTS for found in doubt(job, known)]


def cycles_that_are_not_there(job: Job, known: Known) -> Iterator[Problem]:
    """`loss_cycle` `uniform` on a network without cycles."""
    if job.loss_cycle == "uniform" and known.cycles == 1:
        message = f"{job.architecture} gives logits once, and not in several cycles: the mean of one loss is that loss"
        hint = "remove it, or have the model give all of its cycles (of the zoo's: return_cycles)"
        yield Problem(message, key="loss_cycle", hint=hint)


def metric_that_is_always_full(job: Job, known: Known) -> Iterator[Problem]:
    """`acc5` of five classes or fewer."""
    if job.primary_metric == "acc5" and known.num_classes is not None and known.num_classes <= TOP:
        message = f"of {known.num_classes} classes one is always among the first five: every epoch has 100%"
        yield Problem(message, key="primary_metric", hint="use acc1")


def intervals_that_never_come(job: Job, known: Known) -> Iterator[Problem]:
    """`save_interval` or `knn_interval` longer than the training."""
    if job.save_interval is not None and job.save_interval > job.num_epochs:
        message = (
            f"every {job.save_interval} epochs never comes in {job.num_epochs}: only the best and the last are kept"
        )
        yield Problem(message, key="save_interval", hint="use a smaller one, or remove it")
    if job.knn_interval > job.num_epochs and job.says("knn_interval"):
        message = f"every {job.knn_interval} epochs never comes in {job.num_epochs}: there is one test, at the end"
        yield Problem(message, key="knn_interval", hint="use a smaller one")


def averages_of_almost_nothing(job: Job, known: Known) -> Iterator[Problem]:
    """SWA of the last epoch alone, or annealed beyond it; an EMA that mostly remembers the random start."""
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
            message = f"after {num_steps:,} steps {left:.0%} of the average is still the random weights of the start"
            yield Problem(message, key="ema", hint=f"use a smaller one, such as {max(0.5, 1 - 10 / num_steps):.3g}")


def labels_blurred_twice(job: Job, known: Known) -> Iterator[Problem]:
    """Label smoothing above 0.3 on top of CutMix or MixUp; 0.1 with both is usual."""
    smoothing = number_in(job.criterion_args, "label_smoothing")
    mixing = [key for key in ("cutmix", "mixup") if getattr(job, key) is not None]
    if smoothing is not None and smoothing > MOST_SMOOTHING and mixing:
        message = f"{smoothing:g} beside {' and '.join(mixing)}: little is left of the labels"
        yield Problem(message, key="criterion_args.label_smoothing", hint="0.1 is usual")


def rates_beyond_use(job: Job, known: Known) -> Iterator[Problem]:
    """A rate above what the optimizer can learn with, such as SGD's 0.1 for Adam; `batch_linear`, 8 for 256 images."""
    rate = number_in(job.optimizer_args, "lr")
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
    """A batch that leaves a fifth of the images out of every epoch."""
    if isinstance(job.batch_size, int) and known.steps_per_epoch is not None and known.train_images is not None:
        left_out = known.train_images * job.num_views - known.steps_per_epoch * job.batch_size
        share = left_out / (known.train_images * job.num_views)
        if known.steps_per_epoch < 5 and share > 0.2:
            message = f"{job.batch_size} leaves {share:.0%} of the training images out of each epoch"
            yield Problem(
                message, key="batch_size", hint="the last, incomplete batch is not trained on; use a smaller one"
            )


def views_without_a_difference(job: Job, known: Known) -> Iterator[Problem]:
    """SimCLR or SupCon of views that are all alike."""
    base = transform_parts(job.transform_type)[0]
    if not job.is_contrastive:
        return
    if job.view_dependence:
        message = f"the views of an image share their draws: {job.criterion} compares equal images"
        yield Problem(message, key="view_dependence", hint="set it to false")
    elif base == "none" and not _is_augmented(job):
        message = f"without augmentation all views of an image are equal, and {job.criterion} compares them"
        yield Problem(message, key="transform_type", hint="use contrastive")
    elif base == "default":
        message = f"{job.criterion} with crops and flips alone learns color histograms (Chen et al. 2020)"
        yield Problem(message, key="transform_type", hint="use contrastive")


def _is_augmented(job: Job) -> bool:
    """Whether any image is changed at random, apart from what transform_type says."""
    effects = (job.Noise is not None and job.Noise.comes, job.Blur is not None and job.Blur.comes)
    return any(effects) or (job.Occlusion is not None and job.Occlusion.occludes) or job.randomerase is not None


def occluders_that_do_nothing(job: Job, known: Known) -> Iterator[Problem]:
    """Occluders, blur or noise that are written down and do nothing, by their values or by how often they come."""
    yield from _idle_occluders(job)
    if job.Blur is not None and not job.Blur.comes:
        key, message = "sigmas", f"{_values(job.Blur.sigmas)}: no image is blurred"
        if any(job.Blur.sigmas):
            key, message = "probs", f"{_values(job.Blur.probs)}: no image is blurred"
        yield Problem(message, key=f"Blur.{key}", hint="remove Blur, or use another")
    if job.Noise is not None and not job.Noise.comes:
        key, message = "ssnrs", f"{_values(job.Noise.ssnrs)}: there is no noise"
        if any(ssnr < 1 for ssnr in job.Noise.ssnrs):
            key, message = "probs", f"{_values(job.Noise.probs)}: no image gets noise"
        yield Problem(message, key=f"Noise.{key}", hint="remove Noise, or use another")


def _idle_occluders(job: Job) -> Iterator[Problem]:
    occlusion = job.Occlusion
    if occlusion is None or occlusion.occludes:
        return
    if occlusion.probability == 0:
        yield Problem("0: no image is occluded", key="Occlusion.probability", hint="remove Occlusion, or use another")
    if occlusion.wanted_levels == [] and occlusion.visibility != "all":
        if all(level == 100 for level in occlusion.visibility):
            hint = "remove Occlusion, or use a smaller one"
            yield Problem("all of the image stays visible: nothing is occluded", key="Occlusion.visibility", hint=hint)
        else:
            message = f"{_values(occlusion.vis_probs or [])}: only 100% visibility has a weight, nothing is occluded"
            yield Problem(message, key="Occlusion.vis_probs", hint="give the others a weight too")


def _values(values: Sequence[float]) -> str:
    return listed(f"{value:g}" for value in values)


def weights_of_another_start(job: Job, known: Known) -> Iterator[Problem]:
    """A `checkpoint` beside weights to start from."""
    if job.finetuning is not None and job.checkpoint is not None and job.checkpoint > 0:
        message = f"{job.checkpoint} starts from that epoch of this run, and not from starting_params"
        yield Problem(message, key="checkpoint", hint="remove it, unless the run is there already")


def what_a_device_refuses(job: Job, known: Known) -> Iterator[Problem]:
    """`capturable` where a launch would train on the CPU; `deterministic` for a model that a GPU refuses then."""
    if job.optimizer_args.get("capturable") is True and known.on_cpu:
        message = f"{job.optimizer} takes it on a GPU only: on a CPU, as here, the training is refused"
        yield Problem(message, key="optimizer_args.capturable", hint="remove it, or train on a GPU")
    if job.deterministic and known.without_order:
        message = (
            f"{job.architecture} has {listed(known.without_order)}, of which no kernel on a GPU gives the same bits "
            "every time: a training there is refused"
        )
        yield Problem(message, key="deterministic", hint=INSTEAD_OF_DETERMINISTIC)


def losses_that_rise(job: Job, known: Known) -> Iterator[Problem]:
    """`maximize`: an optimizer that makes the loss as large as it can."""
    if job.optimizer_args.get("maximize") is True:
        message = f"{job.optimizer} then makes {job.criterion} larger with every step, not smaller"
        yield Problem(message, key="optimizer_args.maximize", hint="remove it")


DOUBTS: tuple[Doubt, ...] = (
    *SCHEDULE_DOUBTS,
    cycles_that_are_not_there,
    metric_that_is_always_full,
    intervals_that_never_come,
    averages_of_almost_nothing,
    labels_blurred_twice,
    rates_beyond_use,
    nothing_but_one_batch,
    views_without_a_difference,
    occluders_that_do_nothing,
    weights_of_another_start,
    losses_that_rise,
    what_a_device_refuses,
)
"""In the order in which they are said."""
