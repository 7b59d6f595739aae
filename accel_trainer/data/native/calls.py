"""The kernel's functions for arrays and tensors."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from accel_trainer.data.native.images import Images
from accel_trainer.data.native.library import NO_MEMORY, OUTSIDE, Kernel

Cuts = npt.NDArray[np.int64]
"""int64 (rows, 9): top, left, height and width of a box in an image; the height and width that it is resized to; top
and left of the square window of that which is the row; whether it is flipped."""
CUT_NUMBERS = 9


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
    """Boxes for rows of images, image by image. numbers: float64 (rows, 2 * tries + 3)."""
    numbers = np.ascontiguousarray(numbers, np.float64)
    if numbers.shape[1:] != (2 * rules.tries + 3,):
        raise ValueError(f"{numbers.shape} numbers for {rules.tries} tries")
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
    the last three are added, by channel. Raises MemoryError, and ValueError for a box that is not in its image.
    """
    where = target(cuts, out, byte_scale_and_shift)
    views = len(cuts) // max(1, len(images))
    refuse(kernel.cut(address_of(images.table), len(images), views, *where, kernel.may_use_vectors))


def normalize(kernel: Kernel, pixels: Tensor, out: Tensor, byte_scale_and_shift: tuple[float, ...]) -> None:
    """Bytes as floats, as `cut` makes them: uint8 (rows, 3, height, width) to float32, both contiguous."""
    require(pixels, torch.uint8)
    require(out, torch.float32)
    if out.shape != pixels.shape or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"{tuple(pixels.shape)} pixels have no room in {tuple(out.shape)}")
    area = pixels.shape[2] * pixels.shape[3]
    kernel.normalize(pixels.data_ptr(), len(pixels), area, normalization_of(byte_scale_and_shift), out.data_ptr())


def require(tensor: Tensor, dtype: torch.dtype) -> None:
    """Raises ValueError for a tensor that is not of this type, contiguous, and in the CPU's memory."""
    if tensor.dtype != dtype or not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError(f"a tensor is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}, not contiguous {dtype}")


def target(cuts: Cuts, out: Tensor, byte_scale_and_shift: tuple[float, ...] | None) -> tuple[Any, ...]:
    """What the kernel is told of cuts and of where they go. Raises ValueError where that is not what it takes."""
    require_cuts(cuts)
    if len(out) != len(cuts):
        raise ValueError(f"{len(cuts)} rows have no room in {tuple(out.shape)}")
    return address_of(cuts), *room_for(out, 0, len(cuts), byte_scale_and_shift)


def require_cuts(cuts: Cuts) -> None:
    """Raises ValueError for what the kernel takes for no cuts."""
    if cuts.dtype != np.int64 or cuts.shape[1:] != (CUT_NUMBERS,) or not cuts.flags.c_contiguous:
        raise ValueError(f"cuts are {cuts.dtype} {cuts.shape}")


def room_for(
    out: Tensor, first_row: int, count: int, byte_scale_and_shift: tuple[float, ...] | None
) -> tuple[int, Any, int]:
    """The size of rows, how they are normalized, and the address of the first. Raises ValueError where `out` has no
    room for so many."""
    require(out, torch.uint8 if byte_scale_and_shift is None else torch.float32)
    rows, channels, height, size = out.shape
    if channels != 3 or height != size or first_row < 0 or first_row + count > rows:
        raise ValueError(f"rows {first_row} to {first_row + count} have no room in {tuple(out.shape)}")
    start = first_row * 3 * size * size * out.element_size()
    return size, normalization_of(byte_scale_and_shift), out.data_ptr() + start


def refuse(result: int) -> None:
    """Raises MemoryError and ValueError for what the kernel says of itself and of what it was given."""
    if result == NO_MEMORY:
        raise MemoryError("there is no memory to resize an image")
    if result == OUTSIDE:
        raise ValueError("a box is not in its image")


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
