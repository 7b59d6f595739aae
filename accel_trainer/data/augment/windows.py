"""Windows of masks, read and resized to the size of images, many in a few calls that release the interpreter's lock."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from accel_trainer.data.augment.geometry import cut
from accel_trainer.data.native.calls import Cuts, address_of
from accel_trainer.data.native.images import Images
from accel_trainer.data.native.library import Kernel, kernel
from accel_trainer.data.native.stored import Extents, read
from accel_trainer.data.occluders.masks import Masks, Pixels, Place


def read_masks(wanted: Sequence[tuple[Masks, int]]) -> list[Pixels]:
    """uint8 (1 or 4, h, w), the caller's own, for each of some masks and an index among them.

    Raises UserError where one cannot be read.
    """
    compiled = kernel()
    together = None if compiled is None else _read_together(compiled, [masks.place(index) for masks, index in wanted])
    return [masks.read(index).numpy() for masks, index in wanted] if together is None else together


def _read_together(compiled: Kernel, places: Sequence[Place | None]) -> list[Pixels] | None:
    """All by one call for each file; None where they are to be read one by one, which says what is wrong."""
    known = [place for place in places if place is not None and not place.file.has_failed]
    if not known or len(known) < len(places):
        return None
    offsets = np.array([place.offset for place in known], np.int64)
    sizes = np.array([place.size for place in known], np.int64)
    extents = Extents.of(offsets, sizes, np.zeros(len(known), np.bool_), np.zeros(len(known), np.int64))
    files = np.array([place.file.descriptor for place in known])
    for file in np.unique(files).tolist():
        if not read(compiled, file, Extents(extents.table[files == file], extents.block)):
            return None
    starts = zip(known, extents.starts.tolist(), strict=True)
    return [extents.block[start : start + place.size].reshape(place.shape) for place, start in starts]


def multiply_by_opacity(mask: Pixels) -> None:
    """Colors times opacity, rounded, in place: resizing would else mix in the color of what cannot be seen.

    mask: uint8 (4, h, w). The product of two bytes over 255 is never halfway between whole numbers.
    """
    products = np.multiply(mask[:3], mask[3:], dtype=np.uint16)
    products += 127
    products //= 255
    mask[:3] = products


def resized(masks: Sequence[Pixels], cuts: Cuts, size: int) -> Tensor:
    """Windows of masks as uint8 (masks, channels, size, size). masks: all of one channel, or all of three."""
    # The kernel makes three channels: of one mask three times the same.
    out = torch.empty(len(masks), 3, size, size, dtype=torch.uint8)
    places = [
        (address_of(mask), mask.strides[0] if len(mask) == 3 else 0, *mask.strides[1:], *mask.shape[1:])
        for mask in masks
    ]
    images = Images(np.array(places, np.int64).reshape(-1, 6), [torch.from_numpy(mask) for mask in masks])
    cut(images, cuts, out)
    return out[:, : len(masks[0])].contiguous()
