"""What a schedule says and can hardly mean, by its arguments and by the rates that come of it."""

from collections.abc import Iterator
from dataclasses import dataclass

from accel_trainer.config.job import Job
from accel_trainer.config.known import Doubt, Known, number_in
from accel_trainer.core.errors import Problem

# From how many times the right number on a number is far from it.
FAR = 1.25
# A learning rate that is so small a part of the highest teaches nothing; from which part of the training on it is said.
NOTHING, MUCH = 1e-6, 0.2
# How long torch's schedulers warm up where nobody says.
DEFAULT_WARMUPS = {"LinearLR": 5, "ConstantLR": 5, "PolynomialLR": 5}


def _warmup_epochs(job: Job) -> float:
    if job.warmup_scheduler is None:
        return 0
    given = number_in(job.warmup_scheduler_args, "total_iters")
    return DEFAULT_WARMUPS.get(job.warmup_scheduler, 0) if given is None else given


def _by_epoch(job: Job) -> bool:
    return job.schedule_by == "epoch"


def _length(job: Job, steps_per_epoch: int | None) -> float | None:
    """How often the main scheduler steps in the whole training, after the warm-up."""
    if _by_epoch(job):
        return job.num_epochs - _warmup_epochs(job)
    return None if steps_per_epoch is None else steps_per_epoch * job.num_epochs - _warmup_epochs(job)


def _unit(job: Job) -> str:
    return "epochs" if _by_epoch(job) else "optimizer steps"


def step_that_never_comes(job: Job, steps_per_epoch: int | None) -> str | None:
    """What comes of StepLR's `step_size` where the training ends before it; None elsewhere."""
    length, step_size = _length(job, steps_per_epoch), number_in(job.scheduler_args, "step_size")
    if job.scheduler != "StepLR" or length is None or step_size is None or step_size < length:
        return None
    if length <= 0:  # the warm-up has it all, which is said of that
        return None
    return f"{step_size:g} {_unit(job)} are not reached in {length:g}: the learning rate never falls"


def steps_that_never_come(job: Job, known: Known) -> Iterator[Problem]:
    """StepLR or MultiStepLR with steps after the end. Of a job that says nothing of a schedule, and so has the default,
    a StepLR of 30 epochs, it is no warning: it stands in the line of its rates."""
    length, args = _length(job, known.steps_per_epoch), job.scheduler_args
    if length is None or not (job.says("scheduler") or job.says("scheduler_args")):
        return  # a short training without a word of a schedule has a constant rate, and that is usual
    milestones = args.get("milestones")
    if (message := step_that_never_comes(job, known.steps_per_epoch)) is not None:
        smaller = f"{int(length) // 3}, or " if length >= 3 else ""
        hint = f"use {smaller}ConstantLR, which is flat on purpose"
        yield Problem(message, key="scheduler_args.step_size", hint=hint)
    if job.scheduler == "MultiStepLR" and isinstance(milestones, list):
        never = [one for one in milestones if isinstance(one, int | float) and (one < 0 or one >= length)]
        if never:
            message = f"{never} are not reached in {length:g} {_unit(job)}"
            yield Problem(message, key="scheduler_args.milestones", hint="the learning rate does not fall there")


@dataclass(frozen=True)
class _Course:
    """A scheduler that has a course of a certain length. argument: that says it, with its default. unfinished: what the
    learning rate does where the training is shorter."""

    argument: str
    default: int | None
    unfinished: str


COURSES = {
    "CosineAnnealingLR": _Course("T_max", None, "does not come down"),
    "CosineAnnealingWarmRestarts": _Course("T_0", None, "does not come down, and never restarts"),
    "PolynomialLR": _Course("total_iters", 5, "does not come down"),
    "LinearLR": _Course("total_iters", 5, "does not come to its end_factor"),
    "CyclicLR": _Course("step_size_up", 2000, "does not come up to max_lr"),
}
"""Of these the whole course is meant. OneCycleLR's is refused where it is not that of the training."""


def course_of_another_length(job: Job, known: Known) -> Iterator[Problem]:
    """CosineAnnealingLR, PolynomialLR and others of another length than what the warm-up leaves of the training."""
    length, course, warmup = _length(job, known.steps_per_epoch), COURSES.get(job.scheduler), _warmup_epochs(job)
    if course is None or length is None or length <= 0:
        return
    given = number_in(job.scheduler_args, course.argument)
    takes = course.default if given is None else given
    if takes is None or takes <= 0:
        return
    forgets_warmup = warmup > 0 and takes == length + warmup
    if takes > length * FAR or forgets_warmup:
        message = f"{takes:g}, but there are {length:g} {_unit(job)}: the learning rate {course.unfinished}"
    elif job.scheduler == "CosineAnnealingLR" and takes * FAR < length:
        message = f"{takes:g} of {length:g} {_unit(job)}: after it the learning rate rises again"
    else:
        return
    hint = f"for the whole course use {length:g}" + (", what the warm-up leaves" if warmup else "")
    if job.scheduler == "CyclicLR":
        hint = f"half a cycle takes {takes:g} {_unit(job)}; use fewer"
    yield Problem(message, key=f"scheduler_args.{course.argument}", hint=hint)


def rates_of_nothing(job: Job, known: Known) -> Iterator[Problem]:
    """Any schedule by which the learning rate is next to 0 for a fifth of the training or more."""
    if not known.rates or len(known.rates) < 2:
        return
    highest = max(known.rates)
    lost = sum(rate <= NOTHING * highest for rate in known.rates) / len(known.rates)
    if highest <= 0:
        yield Problem("the learning rate is 0 in the whole training", key="optimizer_args.lr", hint="use a larger one")
    elif lost >= MUCH:
        message = f"in {lost:.0%} of the training the learning rate is below a millionth of its highest, {highest:.3g}"
        hint = f"{job.scheduler} counts {_unit(job)} here: have it end later, or fall more slowly"
        if job.scheduler in DEFAULT_WARMUPS and "total_iters" not in job.scheduler_args:
            hint = f"total_iters is {DEFAULT_WARMUPS[job.scheduler]} where it is not given"
        yield Problem(f"{message}: nothing is learned there", key="scheduler_args", hint=hint)


def rates_that_never_change(job: Job, known: Known) -> Iterator[Problem]:
    """Any schedule, but for ConstantLR, that never changes the learning rate."""
    if job.scheduler in ("ConstantLR", "StepLR", "ReduceLROnPlateau") or not job.says("scheduler"):
        return  # StepLR is told of its step_size
    rates = known.rates
    is_told = any(True for _ in steps_that_never_come(job, known))
    if rates and len(rates) > 2 and 0 < max(rates) == min(rates) and not is_told:
        message = f"{job.scheduler} leaves the learning rate at {rates[0]:g} in the whole training"
        yield Problem(message, key="scheduler_args", hint="use ConstantLR with factor 1, which is flat on purpose")


def plateau_without_time(job: Job, known: Known) -> Iterator[Problem]:
    """ReduceLROnPlateau with a patience as long as the training."""
    patience = number_in(job.scheduler_args, "patience")
    patience = 10 if patience is None else patience
    length = job.num_epochs - _warmup_epochs(job)
    if job.scheduler == "ReduceLROnPlateau" and patience + 1 >= length > 0:
        message = f"{patience:g} epochs without an improvement do not fit into {length:g}: the rate never falls"
        yield Problem(message, key="scheduler_args.patience", hint="use a smaller one")


def warmup_longer_than_training(job: Job, known: Known) -> Iterator[Problem]:
    """A warm-up that leaves no epoch, also by its default length of 5."""
    length = _length(job, known.steps_per_epoch)
    if (warmup := _warmup_epochs(job)) and length is not None and length <= 0:
        message = f"a warm-up of {warmup:g} {_unit(job)} leaves none of {warmup + length:g} to {job.scheduler}"
        yield Problem(message, key="warmup_scheduler_args.total_iters", hint="warm up for a part of the training")


SCHEDULE_DOUBTS: tuple[Doubt, ...] = (
    steps_that_never_come,
    course_of_another_length,
    plateau_without_time,
    rates_of_nothing,
    rates_that_never_change,
    warmup_longer_than_training,
)
"""In the order in which they are said."""
