"""Whole rows of a batch, from a file to what the model sees, by calls of the kernel that threads make at once."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from accel_trainer.data.native.calls import Cuts, address_of, normalization_of, require_cuts, room_for
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.native.pixels import OCCLUDER_NUMBERS, OccluderTable, Steps
from accel_trainer.data.native.stored import STORED_NUMBERS, StoredImages

ALL_TAKEN = -1


@dataclass(frozen=True)
class Stages:
    """What is done to rows once they are cut: occluders before the operations of a policy; these; occluders after
    them. And how they become floats: by scale and shift of bytes, or by mean and standard deviation of pixels in 0..1,
    6 numbers each; by neither they stay bytes.

    before, after: int64 (rows, OCCLUDER_NUMBERS), 0 channels where a row has none; is_known: of which rows the steps
    are all that is done, bool (rows,).
    """

    before: OccluderTable | None = None
    steps: Steps | None = None
    is_known: npt.NDArray[np.bool_] | None = None
    after: OccluderTable | None = None
    byte_scale_and_shift: tuple[float, ...] | None = None
    statistics: tuple[float, ...] | None = None


class _Rows(ctypes.Structure):
    """As rows.c has it."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("next", "is_stopped", "file", "num_images", "views", "size", "num_steps", "may_use_vectors")
        ),
        *(
            (name, ctypes.c_void_p)
            for name in ("stored", "cuts", "before", "after", "steps", "is_left", "normalization", "statistics", "out")
        ),
        ("is_made", ctypes.c_void_p),
    ]


class StoredRows:
    """The rows of images in a file, of which each thread that calls `make` makes some.

    out: contiguous (rows, 3, size, size): uint8, or float32 where rows become floats. Raises ValueError for what the
    kernel does not take.
    """

    def __init__(self, kernel: Kernel, images: StoredImages, cuts: Cuts, stages: Stages, out: Tensor) -> None:
        require_cuts(cuts)
        count, num_rows = len(images.table), len(cuts)
        table = np.ascontiguousarray(images.table, np.int64)
        if not count or num_rows % count or len(out) != num_rows or table.shape != (count, STORED_NUMBERS):
            raise ValueError(f"{num_rows} rows of {count} images have no room in {tuple(out.shape)}")
        numbers = stages.byte_scale_and_shift or stages.statistics
        size, _, first = room_for(out, 0, num_rows, numbers)
        steps = _of_rows(stages.steps, num_rows, np.dtype(np.int64))
        before, after = (_of_rows(given, num_rows, np.dtype(np.int64)) for given in (stages.before, stages.after))
        for occluders in (before, after):
            if occluders is not None and occluders.shape[1:] != (OCCLUDER_NUMBERS,):
                raise ValueError(f"occluders {occluders.shape}")
        if after is not None and stages.statistics is None:
            raise ValueError("occluders after a policy are in front of floats")
        views = num_rows // count
        is_left = None
        if stages.is_known is not None and not stages.is_known.all():
            is_left = np.ascontiguousarray(~stages.is_known.reshape(count, views).all(axis=1))
        self._images, self._make = images, kernel.make_rows
        self.is_made = np.zeros(count, np.bool_)
        # As long as the kernel may use it.
        self._kept = table, cuts, before, after, steps, is_left, out
        self._rows = _Rows(
            num_images=count,
            views=views,
            size=size,
            num_steps=0 if steps is None else steps.shape[1],
            file=images.file.descriptor,
            may_use_vectors=kernel.may_use_vectors,
            stored=address_of(table),
            cuts=address_of(cuts),
            before=_address(before),
            after=_address(after),
            steps=_address(steps),
            is_left=_address(is_left),
            normalization=_place(stages.byte_scale_and_shift),
            statistics=_place(stages.statistics),
            out=first,
            is_made=address_of(self.is_made),
        )
        self._address = ctypes.addressof(self._rows)

    def __len__(self) -> int:
        return len(self.is_made)

    @property
    def are_all_taken(self) -> bool:
        """Whether nothing is left to be made; others may be at it."""
        return bool(self._rows.next >= len(self))

    def make(self) -> int | None:
        """Make rows until all images are taken. Before that, the number of one whose rows cannot be made here, for
        which `make` is to be called again: of what went wrong nothing is said."""
        if not self._is_as_opened:
            self._rows.is_stopped = 1
        left: int = self._make(self._address)
        return None if left == ALL_TAKEN else left

    def made(self) -> npt.NDArray[np.bool_]:
        """Of which images the rows are there, bool (images,), once all are taken: of none where the file was opened
        again meanwhile, since what was read by the new opening was not compared."""
        if self._images.file.num_openings != self._images.opening:
            return np.zeros(len(self), np.bool_)
        self._images.compared(self._images.numbers[self.is_made], self._images.opening)
        return self.is_made

    @property
    def _is_as_opened(self) -> bool:
        file = self._images.file
        return not file.has_failed and file.num_openings == self._images.opening


def _of_rows(given: Any, num_rows: int, dtype: np.dtype[Any]) -> Any:
    """An array with as many rows, contiguous. Raises ValueError for another number of them."""
    if given is None:
        return None
    if len(given) != num_rows:
        raise ValueError(f"{given.shape} for {num_rows} rows")
    return np.ascontiguousarray(given, dtype)


def _address(array: npt.NDArray[Any] | None) -> int | None:
    return None if array is None else address_of(array)


def _place(numbers: Sequence[float] | None) -> int | None:
    return None if numbers is None else ctypes.addressof(normalization_of(tuple(numbers)))
