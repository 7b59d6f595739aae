"""The kernel's functions that change pixels: operations of policies, and occluders in front of images."""

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.data.native.calls import address_of, refuse, require
from accel_trainer.data.native.library import Kernel

# Kinds of steps, as operations.c has them. Those from SATURATION to SHARPNESS have two factors.
SAME, BY_LEVEL, MOVED, SATURATION, CONTRAST, SHARPNESS, AUTO_CONTRAST, EQUALIZE = range(8)
LEVELS = 256
# Columns of Occluders.
ROW, FILE, OFFSET, CHANNELS, HEIGHT, WIDTH, CUT, UPSIDE_DOWN, FILL, OCCLUDER_NUMBERS = 0, 1, 2, 3, 4, 5, 6, 15, 16, 19

Steps = npt.NDArray[np.int64]
"""What is done to images in succession, each its kind and the address of its table: int64 (images, steps, 2)."""
OccluderTable = npt.NDArray[np.int64]
"""Occluders as the kernel is told of them: int64 (occluders, 19), of which the last three are float64."""


@dataclass(frozen=True)
class Table:
    """What a step needs: 256 bytes by level; the numbers of pixels, from 1, and 0 for none, int32; two float32."""

    kind: int
    values: npt.NDArray[np.uint8] | npt.NDArray[np.int32] | npt.NDArray[np.float32] | None = None

    @property
    def step(self) -> tuple[int, int]:
        """As one of `Steps`, as long as the table is kept."""
        return self.kind, 0 if self.values is None else address_of(self.values)

    @property
    def size(self) -> int:
        """Bytes."""
        return 0 if self.values is None else self.values.nbytes


def by_level(values: npt.NDArray[np.uint8]) -> Table:
    """Each level becomes another: uint8 (256,)."""
    if values.shape != (LEVELS,) or values.dtype != np.uint8:
        raise ValueError(f"a table of levels is {values.dtype} {values.shape}")
    return Table(BY_LEVEL, np.ascontiguousarray(values))


def moved(numbers: npt.NDArray[np.int32]) -> Table:
    """Each pixel comes from another, or from outside. numbers: int32 (height * width,), as in `Table`."""
    if numbers.dtype != np.int32 or numbers.ndim != 1 or numbers.min() < 0 or numbers.max() > len(numbers):
        raise ValueError("pixels come from nowhere")
    return Table(MOVED, np.ascontiguousarray(numbers))


def mixed(kind: int, own: float, other: float) -> Table:
    """Pixels times `own`, and what they are mixed with times `other`."""
    return Table(kind, np.array([own, other], np.float32))


def operate(kernel: Kernel, images: Tensor, steps: Steps) -> None:
    """Change images, uint8 (n, 3, height, width), in place. The tables of the steps are of their size."""
    require(images, torch.uint8)
    if images.ndim != 4 or images.shape[1] != 3 or steps.shape != (len(images), steps.shape[1], 2):
        raise ValueError(f"steps {steps.shape} for images {tuple(images.shape)}")
    steps = np.ascontiguousarray(steps, np.int64)
    shape = len(images), *images.shape[2:]
    refuse(kernel.operate(images.data_ptr(), *shape, address_of(steps), steps.shape[1], kernel.may_use_vectors))


def occlude(
    kernel: Kernel, images: Tensor, occluders: OccluderTable, statistics: tuple[float, ...] | None, out: Tensor | None
) -> int:
    """Put occluders in front of some of the images, uint8 (n, 3, size, size), in the order of the images.

    statistics: mean and standard deviation of each channel: 6 numbers, by which all images become normalized floats in
    `out`, float32 of the same shape; else the images are overwritten. How many images, from the first, are done: not
    all where a mask cannot be read.
    """
    require(images, torch.uint8)
    size = images.shape[-1]
    if images.shape[1:] != (3, size, size) or occluders.shape[1:] != (OCCLUDER_NUMBERS,):
        raise ValueError(f"occluders {occluders.shape} for images {tuple(images.shape)}")
    if (out is None) != (statistics is None) or (out is not None and out.shape != images.shape):
        raise ValueError("there is no room for normalized images")
    floats = None
    if out is not None and statistics is not None:
        require(out, torch.float32)
        floats = (ctypes.c_float * 6)(*statistics)
    occluders = np.ascontiguousarray(occluders, np.int64)
    done = ctypes.c_int64()
    where = floats, None if out is None else out.data_ptr(), ctypes.byref(done), kernel.may_use_vectors
    kernel.occlude(images.data_ptr(), len(images), size, address_of(occluders), len(occluders), *where)
    return done.value
