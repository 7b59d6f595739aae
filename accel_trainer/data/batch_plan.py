"""Which images go into which batch, on which process: pure functions of (seed, epoch, step, rank)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.core import keyed_random
from accel_trainer.core.errors import UserError
from accel_trainer.data.dataset import Splits

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BatchPlan:
    """What one process loads for one forward pass, and the global batch it is a part of.

    `indices` is this rank's slice of this micro-batch, from position `start` of `global_indices`, all images of the
    optimizer step. An image that has several views is in it once.
    """

    epoch: int
    step: int  # within the epoch, from 0
    indices: Indices
    global_indices: Indices
    start: int = 0


@dataclass(frozen=True)
class TrainBatchPlanner:
    """How the training set is cut into batches. The order is that of one process, whatever `world_size` is.

    `batch_size` counts views: with two of them, half as many images.
    """

    num_images: int
    batch_size: int
    accumulation: int
    world_size: int
    seed: int
    num_views: int = 1

    def __post_init__(self) -> None:
        parts = self.num_views * self.world_size * self.accumulation
        factors = ((self.num_views, "views"), (self.world_size, "processes"), (self.accumulation, "accumulation steps"))
        by = " x ".join(f"{count} {what}" for count, what in factors if count > 1)
        if self.batch_size % parts:
            below = self.batch_size // parts * parts
            near = f"{below} or {below + parts}" if below else str(parts)
            raise UserError(f"{self.batch_size} cannot be divided by {by}; use {near}", key="batch_size")
        if self.batch_size > (there := self.num_images * self.num_views):
            largest = there // parts * parts
            advice = f"use at most {largest}" if largest else f"they are too few for {by}"
            each = f" in {self.num_views} views each" if self.num_views > 1 else ""
            raise UserError(
                f"{self.batch_size} is more than the {self.num_images} training images{each}; {advice}",
                key="batch_size",
            )

    @property
    def images_per_step(self) -> int:
        """How many different images a global batch has."""
        return self.batch_size // self.num_views

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; images that do not fill a global batch are left out."""
        return self.num_images // self.images_per_step

    @property
    def examples_per_epoch(self) -> int:
        """All views of the images that are trained on; the last, incomplete batch is left out."""
        return self.steps_per_epoch * self.batch_size

    @property
    def images_per_forward(self) -> int:
        """How many different images one process sees in one forward pass."""
        return self.images_per_step // (self.world_size * self.accumulation)

    def micro_batches(self, epoch: int, rank: int, first_step: int = 0) -> Iterator[BatchPlan]:
        """The batches of one rank from `first_step` on, `accumulation` of them for each step."""
        order = keyed_random.permutation(keyed_random.key(self.seed, "order", epoch), self.num_images)
        own = self.images_per_forward
        for step in range(first_step, self.steps_per_epoch):
            global_batch = order[step * self.images_per_step : (step + 1) * self.images_per_step]
            for micro_batch in range(self.accumulation):
                start = (micro_batch * self.world_size + rank) * own
                yield BatchPlan(epoch, step, global_batch[start : start + own], global_batch, start)


def plan_training(job: ResolvedJob, images: Splits, world_size: int) -> TrainBatchPlanner:
    """How a job's training images are cut into batches on `world_size` processes. Raises UserError."""
    return TrainBatchPlanner(
        num_images=len(images.train.labels),
        batch_size=job.batch_size,
        accumulation=job.gradient_accumulation,
        world_size=world_size,
        seed=job.seed,
        num_views=job.num_views,
    )


def possible_batch_sizes(job: Job, images: Splits, world_size: int) -> list[int]:
    """The batch sizes that "auto" chooses from, smallest first; see `batch_sizes`."""
    return batch_sizes(len(images.train.labels), job.num_views, world_size, job.gradient_accumulation)


def batch_sizes(num_images: int, num_views: int, world_size: int, accumulation: int) -> list[int]:
    """The sizes that "auto" chooses from, smallest first: a power of two of images in each forward pass, at most the
    training set.

    Two images at least, as BatchNorm needs, unless the training set is too small for that; one that is too small for
    any size is refused by TrainBatchPlanner.
    """
    parts = num_views * world_size * accumulation
    sizes = [2 * parts]
    while 2 * sizes[-1] <= num_images * num_views:
        sizes.append(2 * sizes[-1])
    return sizes if sizes[0] <= num_images * num_views else [parts]


def evaluation_batches(num_images: int, batch_size: int, rank: int, world_size: int) -> Iterator[BatchPlan]:
    """Every image once over all ranks; ranks may have different numbers of batches."""
    own = np.arange(rank, num_images, world_size)
    for step, start in enumerate(range(0, len(own), batch_size)):
        indices = own[start : start + batch_size]
        yield BatchPlan(0, step, indices, indices)


def whole_batches(
    num_images: int, batch_size: int, rank: int, world_size: int, seed: int, *, least: int = 1
) -> Iterator[BatchPlan]:
    """Every image once over all ranks, in batches that are one rank's each, whatever the number of ranks.

    For images that are compared with each other. The order is random, or neighbors would be of one class, and the
    same in every epoch; the last batch may be smaller. least: fewer images than that are not left to a last batch, but
    are in the one before, where there is one.
    """
    order = keyed_random.permutation(keyed_random.key(seed, "validation order"), num_images)
    starts = list(range(0, num_images, batch_size))
    if len(starts) > 1 and num_images - starts[-1] < least:
        starts.pop()
    for step, (start, end) in enumerate(zip(starts, [*starts[1:], num_images], strict=True)):
        if step % world_size == rank:
            indices = order[start:end]
            yield BatchPlan(0, step, indices, indices)
