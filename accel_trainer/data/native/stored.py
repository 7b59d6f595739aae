"""The kernel's functions for bytes in files."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from accel_trainer.core.random_access import RandomAccessFile
from accel_trainer.data.native.calls import Cuts, address_of, require_cuts, room_for
from accel_trainer.data.native.images import Blocks, Images
from accel_trainer.data.native.library import Kernel

# Of Extents.
OFFSET, SIZE, IS_CHECKED, CHECKSUM, ADDRESS = range(5)
# Of StoredImages.
HEIGHT, WIDTH, STORED_IS_CHECKED = 1, 2, 3
STORED_NUMBERS = 6
# Of a record of a pack.
RECORD_BYTES = 32


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


@dataclass(frozen=True)
class StoredImages:
    """Images whose pixels, uint8 (height, width, 3), are in a file.

    table: of each its offset, height and width (0 where it is no image), whether it is compared with its CRC-32, of how
    many bytes that is, and the CRC-32: int64 (images, 6). sizes: images of the same sizes, of one pixel where there is
    none, that have no pixels; numbers: of the images in their data set; opening: of the file, to which the table
    belongs; compared: told of the numbers that were compared and are what they were.
    """

    file: RandomAccessFile
    table: npt.NDArray[np.int64]
    sizes: Images
    numbers: npt.NDArray[np.int64]
    opening: int
    compared: Callable[[npt.NDArray[np.int64], int], None]


def find_stored(
    kernel: Kernel,
    records: npt.NDArray[np.void],
    numbers: npt.NDArray[np.int64],
    checked: npt.NDArray[np.int64],
    opening: int,
) -> tuple[npt.NDArray[np.int64], Images]:
    """Table and sizes of `StoredImages`, by the records of a pack (pack/format.RECORD).

    checked: of which opening of the file each of all images was last compared, int64 (all,). Raises IndexError.
    """
    numbers = np.ascontiguousarray(numbers, np.int64)
    if (
        records.dtype.itemsize != RECORD_BYTES
        or checked.shape != (len(records),)
        or checked.dtype != np.int64
        or not records.flags.c_contiguous
    ):
        raise ValueError(f"records of {records.dtype.itemsize} bytes, and {checked.shape} that are compared")
    table = np.empty((len(numbers), STORED_NUMBERS), np.int64)
    sizes = np.empty((len(numbers), 6), np.int64)
    all_of_them = address_of(records), len(records)
    wanted = address_of(numbers), len(numbers), address_of(checked), opening
    if kernel.find_stored(*all_of_them, *wanted, address_of(table), address_of(sizes)) != 0:
        raise IndexError(f"images of {len(records)}: {numbers}")
    return table, Images(sizes, None)


class StoredCuts:
    """What is cut out of images in a file, for all of a batch: of some of them rows are written by one call."""

    def __init__(self, kernel: Kernel, images: StoredImages, cuts: Cuts) -> None:
        require_cuts(cuts)
        self._kernel, self._images, self._cuts = kernel, images, cuts
        self._table = np.ascontiguousarray(images.table)
        self._views = len(cuts) // max(1, len(self._table))
        self._addresses = address_of(self._table), address_of(cuts)
        self._are_all_there = bool(self._table[:, HEIGHT].all())
        self._is_any_new = bool(self._table[:, STORED_IS_CHECKED].any())

    def cut(self, which: slice, out: Tensor, first_row: int, byte_scale_and_shift: tuple[float, ...] | None) -> bool:
        """As `calls.cut`, of some images, to the rows of `out` from the first on, if all of them can be read and are
        what they were; whether that is so. Of what went wrong nothing is said here."""
        images, file = self._images, self._images.file
        if file.has_failed or file.num_openings != images.opening:
            return False
        if not (self._are_all_there or self._table[which, HEIGHT].all()):
            return False
        start, count = which.start, which.stop - which.start
        if not 0 <= start <= which.stop <= len(self._table):
            raise ValueError(f"images {start} to {which.stop} of {len(self._table)}")
        where = room_for(out, first_row, count * self._views, byte_scale_and_shift)
        table = self._addresses[0] + start * self._table.strides[0]
        cuts = self._addresses[1] + start * self._views * self._cuts.strides[0]
        kernel = self._kernel
        if kernel.cut_stored(file.descriptor, table, count, self._views, cuts, *where, kernel.may_use_vectors) != 0:
            return False
        if self._is_any_new:
            images.compared(images.numbers[which], images.opening)
        return True


def will_need(kernel: Kernel, file: int, offsets: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> None:
    """Tell the system that these bytes of an open file are read soon; it reads ahead what it has not."""
    order = np.argsort(offsets)
    places = np.stack([offsets[order], sizes[order]], axis=1)
    kernel.will_need(file, address_of(places), len(places))
