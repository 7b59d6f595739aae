"""A learning rate from a range test (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017), as fastai
and Lightning do it."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from accel_trainer.config import ResolvedJob
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.loader import Batch, Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.build import Components
from accel_trainer.training.optim.optimizer import set_learning_rate
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.step import TrainingStep

FIRST_RATE, LAST_RATE, NUM_STEPS = 1e-7, 10.0, 100
# Of the running mean of the losses, per step.
SMOOTHING = 0.9
# The loss has diverged when it is so many times its least.
DIVERGENCE_FACTOR = 4.0
# Steps at the beginning whose running mean is of few losses.
NUM_SKIPPED = 10


@dataclass(frozen=True)
class RangeTestPoint:
    """A step of the test: its learning rate, the loss of its global batch, and the running mean of losses so far."""

    rate: float
    loss: float
    smoothed: float


def range_test(
    job: ResolvedJob,
    parts: Components,
    accelerator: Accelerator,
    loader: Loader,
    stop: StopRequest,
    progress: Callable[[int, int], None],
) -> list[RangeTestPoint]:
    """Train with rates that rise exponentially from 1e-7 to 10 in 100 steps, until the loss diverges.

    The steps are those of the training: the same model, batches, loss and optimizer on all ranks, which call this
    together and get the same answer; with `layer_decay` each layer has its fraction of the rate. A small training set
    is used several times. The test ends early when the running mean is four times its least, or a loss is not
    finite. It modifies the components; torch's generators and the loss scaler are restored.

    progress: called with the number of steps taken, and of all. Raises Stopped, on all ranks alike.
    """
    with _preserve_random_state(accelerator):
        step = TrainingStep(job, parts, accelerator)
        step.train_mode()
        tried: list[RangeTestPoint] = []
        for number, micro_batches in enumerate(_steps(parts, accelerator, loader)):
            rate = FIRST_RATE * (LAST_RATE / FIRST_RATE) ** (number / (NUM_STEPS - 1))
            set_learning_rate(step.optimizer, rate)
            loss = _global_loss(step, number, micro_batches, stop)
            progress(number + 1, NUM_STEPS)
            if not math.isfinite(loss):
                break
            tried.append(RangeTestPoint(rate, loss, _smoothed(loss, tried)))
            if tried[-1].smoothed > DIVERGENCE_FACTOR * min(point.smoothed for point in tried):
                break
        progress(NUM_STEPS, NUM_STEPS)
        return tried


def steepest_step(smoothed: NDArray[np.float64], log_rates: NDArray[np.float64]) -> int | None:
    """The number of the step at which the running mean of the losses falls steepest over the logarithm of the rate, on
    its way to its least; None where there is no such way. Both arrays (steps,).

    What comes after the least does not count: a loss that has jumped up may fall steeper than any that is learning. Nor
    do the first ten steps, whose means are of few losses.
    """
    if not len(smoothed):
        return None
    falling = slice(NUM_SKIPPED, int(smoothed.argmin()) + 1)
    if falling.stop - falling.start < 2:
        return None
    return NUM_SKIPPED + int(np.gradient(smoothed[falling], log_rates[falling]).argmin())


def write_range_test(run: RunFolder, tried: Sequence[RangeTestPoint]) -> None:
    """lr_finder.csv, a row for each step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rate", "loss", "smoothed"])
    writer.writerows([f"{value:.8g}" for value in vars(point).values()] for point in tried)
    run.write(run.lr_finder, text.getvalue())


def _smoothed(loss: float, before: Sequence[RangeTestPoint]) -> float:
    """An exponential running mean, without the bias of its beginning."""
    total, weight = loss, 1.0
    for age, point in enumerate(reversed(before), start=1):
        total += SMOOTHING**age * point.loss
        weight += SMOOTHING**age
    return total / weight


def _steps(parts: Components, accelerator: Accelerator, loader: Loader) -> Iterator[list[Batch]]:
    """This rank's micro-batches of each step, epoch after epoch as in training."""
    accumulation, rank = parts.sampling.accumulation, accelerator.process_index
    epochs = (parts.sampling.micro_batches(epoch, rank) for epoch in count(1))
    plans = islice(chain.from_iterable(epochs), NUM_STEPS * accumulation)
    batches = loader.batches(parts.train_reader, plans)
    for _ in range(NUM_STEPS):
        yield list(islice(batches, accumulation))


def _global_loss(step: TrainingStep, number: int, micro_batches: list[Batch], stop: StopRequest) -> float:
    """Take a step; the loss of its global batch. Raises Stopped when any rank was asked to stop."""
    losses = [step(batch, number, micro_batch).loss.detach() for micro_batch, batch in enumerate(micro_batches)]
    sums = torch.stack([torch.stack(losses).sum().float(), torch.tensor(float(bool(stop))).to(losses[0].device)])
    loss, stopped = step.accelerator.reduce(sums, reduction="sum").tolist()
    if stopped:
        raise Stopped
    return float(loss)


@contextmanager
def _preserve_random_state(accelerator: Accelerator) -> Iterator[None]:
    """What is trained in here leaves no trace in torch's generators and in the loss scaler."""
    scaler = accelerator.scaler
    before = scaler.state_dict() if scaler is not None else None
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        if scaler is not None and before is not None:
            scaler.load_state_dict(before)
