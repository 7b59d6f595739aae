"""What is drawn for the images of a batch: numbers that follow from the seed and from what they are for."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from accel_trainer.core import keyed_random
from accel_trainer.data.native.draws import random_numbers
from accel_trainer.data.native.library import kernel

# The same for all batches of an epoch.
_key = lru_cache(maxsize=256, typed=True)(keyed_random.key)
Numbers = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """Random numbers for some images of one global batch, a row for each view of each image.

    Rows are image by image, the views of an image in succession: view v of the i-th image is row
    i * num_views + v. A row follows from (seed, purpose, epoch, image, view) and from nothing else; with
    `view_dependence` the view does not count, and all views of an image have the same numbers; with
    `batch_dependence` the number of the global batch stands for the image, and all images have the same.
    """

    seed: int
    epoch: int
    step: int  # number of the global batch within its epoch
    indices: npt.NDArray[np.int64]
    num_views: int = 1
    view_dependence: bool = False
    batch_dependence: bool = False

    def __len__(self) -> int:
        return len(self.indices) * self.num_views

    @property
    def views(self) -> npt.NDArray[np.int64]:
        """Which view each row is: int64 of shape (rows,)."""
        return np.tile(np.arange(self.num_views), len(self.indices))

    def random_bits(self, purpose: str, count: int) -> Keys:
        """Random bits: uint64 of shape (rows, count)."""
        bits: Keys = self._random(purpose, count, are_uniform=False)
        return bits

    def uniforms(self, purpose: str, count: int) -> Numbers:
        """Numbers in [0, 1): float64 of shape (rows, count)."""
        numbers: Numbers = self._random(purpose, count, are_uniform=True)
        return numbers

    def _random(self, purpose: str, count: int, *, are_uniform: bool) -> Any:
        """By the compiled kernel in one call; without it the same, by arrays."""
        shared = ("batch",) if self.batch_dependence else ()
        views = range(1) if self.view_dependence else range(self.num_views)
        keys = [_key(self.seed, purpose, *shared, self.epoch, view) for view in views]
        if (compiled := kernel()) is not None:
            subjects = np.full(len(self.indices), self.step) if self.batch_dependence else self.indices
            of_each = keys * self.num_views if self.view_dependence else keys
            return random_numbers(compiled, of_each, subjects, count, are_uniform=are_uniform)
        # A draw for the batch is computed once, for every image.
        subjects = np.array([self.step]) if self.batch_dependence else self.indices
        drawn = [keyed_random.random_bits(key, subjects, count) for key in keys]
        shape = (len(self.indices), self.num_views, count)
        # A copy: views of one memory may not be written, of which torch warns.
        bits = np.array(np.broadcast_to(np.stack(drawn, axis=1), shape)).reshape(-1, count)
        return keyed_random.unit_interval(bits) if are_uniform else bits

    def keys(self, purpose: str) -> Keys:
        """A key of 64 bits for a random field in each row; see `random_fields`: uint64 of shape (rows,)."""
        return self.random_bits(purpose, 1)[:, 0]

    def for_whole_batch(self, purpose: str) -> float:
        """One number in [0, 1) for the global batch, whatever is shared."""
        key = keyed_random.key(self.seed, purpose, self.epoch)
        return float(keyed_random.uniforms(key, [self.step], 1)[0, 0])


@dataclass(frozen=True)
class DrawRules:
    """What random numbers follow from, whatever the batch: the fields of `Draws` that are those of a job."""

    seed: int = 0
    num_views: int = 1
    view_dependence: bool = False
    batch_dependence: bool = False

    def draws(self, epoch: int, step: int, indices: npt.NDArray[np.int64]) -> Draws:
        """The numbers for images of a global batch: indices int64 (images,), of the data set."""
        return Draws(epoch=epoch, step=step, indices=indices, **vars(self))


@dataclass(frozen=True)
class Parameters:
    """What was drawn for an effect: arrays with one entry for each row."""

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


def between(low: Any, high: Any, numbers: Any) -> Any:
    """Numbers in [0, 1), floats or arrays, spread from low to high."""
    return low + (high - low) * numbers


def which(numbers: Numbers, count: int | Integers) -> Integers:
    """Which of `count` equally likely things each number in [0, 1) stands for."""
    return (numbers * count).astype(np.int64)


def choose(numbers: Numbers, weights: Sequence[float]) -> Integers:
    """Which of several things each number in [0, 1) stands for, by their probabilities; -1 for what is left of 1.

    numbers: any shape; the result has it too. Weights that add up to 1, up to rounding, leave nothing.
    """
    edges = np.cumsum(weights)
    if abs(edges[-1] - 1) < 1e-9:
        edges[edges == edges[-1]] = 1.0  # not the last one alone: it may have no weight
    chosen = np.searchsorted(edges, numbers, side="right")
    return np.where(chosen < len(edges), chosen, -1)
