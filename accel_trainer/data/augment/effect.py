"""What an effect is: something done to pixels after cropping, at random, on whichever device they are.

Effects are written for batches of float images with parameters of their own for each, and give each image the same
whatever else is in the batch.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.data.rng.draws import Draws, Parameters

Rows = npt.NDArray[np.int64]


class Effect(Protocol):
    """Three steps: what is drawn, what of files that takes (the identity for most), and what is done with it."""

    @property
    def is_elementwise(self) -> bool:
        """Whether an image has the same bits wherever in a batch it lies, on a CPU: not so with matrices, convolutions
        and Fourier transforms, of which the library sums up in another order at the end of a batch."""
        ...

    def draw(self, draws: Draws) -> Parameters:
        """The parameters of every row. Depends on the draws alone."""
        ...

    def fetch(self, parameters: Any) -> Any:
        """The parameters with the pixels that they stand for, read and cut to size by the loader's threads."""
        ...

    def apply(self, images: Tensor, fetched: Any) -> Tensor:
        """float32 (rows, 3, height, width) in 0..1 to the same; the input may be overwritten."""
        ...


class SimpleEffect:
    """An effect whose parameters are all that it needs."""

    @property
    def is_elementwise(self) -> bool:
        """Not known to be."""
        return False

    def fetch(self, parameters: Any) -> Any:
        """The parameters as they are."""
        return parameters


class Unchanged(SimpleEffect):
    """Nothing is done to any image."""

    @property
    def is_elementwise(self) -> bool:
        """It is."""
        return True

    def draw(self, draws: Draws) -> Parameters:
        """No parameters."""
        return Parameters()

    def apply(self, images: Tensor, fetched: Parameters) -> Tensor:
        """The images themselves."""
        return images


def column(values: npt.ArrayLike, images: Tensor) -> Tensor:
    """One number for each image, float32 of shape (rows, 1, 1, 1) on the images' device."""
    numbers = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    return numbers.to(images.device, non_blocking=True).view(-1, 1, 1, 1)


def change_rows(images: Tensor, rows: Rows, change: Callable[..., Tensor], *parameters: npt.NDArray[Any]) -> Tensor:
    """The images with some of them changed, by `change(those images, their part of each parameter ...)`."""
    if len(rows) == 0:
        return images
    theirs = [values[rows] for values in parameters]
    if len(rows) == len(images):
        return change(images, *theirs)
    where = torch.from_numpy(rows).to(images.device, non_blocking=True)
    return images.index_copy_(0, where, change(images.index_select(0, where), *theirs))


def inside(boxes: npt.NDArray[np.int64], images: Tensor) -> Tensor:
    """Which pixels are in the box of their image, bool (rows, 1, height, width).

    boxes: top, bottom, left and right, int64 (rows, 4); bottom and right are outside.
    """
    top, bottom, left, right = torch.from_numpy(boxes).to(images.device, non_blocking=True).T[..., None, None, None]
    down, across = (torch.arange(size, device=images.device) for size in images.shape[-2:])
    down = down[:, None]
    output: Tensor = (top <= down) & (down < bottom) & (left <= across) & (across < right)
    return output
