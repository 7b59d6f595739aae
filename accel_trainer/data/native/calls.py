"""The kernel's functions for arrays and tensors."""

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from accel_trainer.data.native.images import Blocks, Images
from accel_trainer.data.native.library import NO_MEMORY, Kernel

Cuts = npt.NDArray[np.int64]
"""int64 (rows, 9): top, left, height and width of a box in an image; the height and width that it is resized to; top
and left of the square window of that which is the row; whether it is flipped."""
CUT_NUMBERS = 9
# Of Extents.
OFFSET, SIZE, IS_CHECKED, CHECKSUM, ADDRESS = range(5)


class CropRules(ctypes.Structure):
    """Of a random resized crop; see geometry.crop_box."""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("low_area", "high_area", "low_log_ratio", "high_log_ratio")),
        *((name, ctypes.c_double) for name in ("low_ratio", "high_ratio", "flipped_below")),
        *((name, ctypes.c_int64) for name in ("tries", "size")),
    ]


def address_of(array: npt.NDArray[Any]) -> int:
    """Where the first number of an array is."""
    address: int = array.__array_interface__["data"][0]
    return address


def random_crops(kernel: Kernel, images: Images, numbers: npt.NDArray[np.float64], rules: CropRules) -> Cuts:
    """Boxes for rows of images, image by image. numbers: float64 (rows, 2 * tries + 3), contiguous."""
    numbers = np.ascontiguousarray(numbers)
    cuts = np.empty((len(numbers), CUT_NUMBERS), np.int64)
    views = len(numbers) // max(1, len(images))
    kernel.random_crops(
        address_of(images.table), len(images), views, address_of(numbers), ctypes.byref(rules), address_of(cuts)
    )
    return cuts


@cache
def normalization_of(byte_scale_and_shift: tuple[float, ...] | None) -> Any:
    """Six numbers as the kernel takes them."""
    return None if byte_scale_and_shift is None else (ctypes.c_float * 6)(*byte_scale_and_shift)


def cut(
    kernel: Kernel, images: Images, cuts: Cuts, out: Tensor, byte_scale_and_shift: tuple[float, ...] | None
) -> None:
    """Write the rows of images, image by image.

    out: contiguous (rows, 3, size, size): uint8, or float32 where bytes are multiplied by the first three numbers and
    the last three are added, by channel. Raises MemoryError.
    """
    normalization = normalization_of(byte_scale_and_shift)
    views = len(cuts) // max(1, len(images))
    where = (address_of(cuts), out.shape[-1], normalization, out.data_ptr(), kernel.may_use_vectors)
    if kernel.cut(address_of(images.table), len(images), views, *where) == NO_MEMORY:
        raise MemoryError("there is no memory to resize an image")


@dataclass(frozen=True)
class Extents:
    """Stored bytes that are read together, one after the other, into one block.

    table: of each its offset and size, whether it is compared with its CRC-32, the CRC-32, and its address:
    int64 (extents, 5).
    """

    table: npt.NDArray[np.int64]
    block: npt.NDArray[np.uint8]

    @classmethod
    def of(
        cls,
        offsets: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        is_checked: npt.NDArray[np.bool_],
        checksums: npt.NDArray[np.int64],
        blocks: Blocks | None = None,
    ) -> "Extents":
        """With room for them, of these blocks where given."""
        ends = sizes.cumsum()
        block = np.empty(int(ends[-1]), np.uint8) if blocks is None else blocks.empty(int(ends[-1]))
        table = np.empty((len(sizes), 5), np.int64)  # not stacked: of signed and unsigned numbers that makes floats
        for column, values in enumerate((offsets, sizes, is_checked, checksums, ends - sizes + address_of(block))):
            table[:, column] = values
        return cls(table, block)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each is in the block."""
        starts: npt.NDArray[np.int64] = self.table[:, ADDRESS] - address_of(self.block)
        return starts


def read(kernel: Kernel, file: int, extents: Extents) -> bool:
    """Read from an open file; whether all was read, and is what it was. Of what went wrong nothing is said here."""
    return bool(kernel.read(file, address_of(extents.table), len(extents.table)) == 0)


def agrees_with_torch(kernel: Kernel) -> bool:
    """Whether a small image, resized up and down, has the bits that torch gives."""
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    images = Images.of([image])
    for size in (19, 96):
        whole = np.array([[0, 0, 37, 53, size, size, 0, 0, 0]], np.int64)
        ours = torch.empty(1, 3, size, size, dtype=torch.uint8)
        cut(kernel, images, whole, ours, None)
        theirs = F.interpolate(image[None], (size, size), mode="bilinear", antialias=True)
        if not torch.equal(ours, theirs):
            return False
    return True
