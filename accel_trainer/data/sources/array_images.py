"""Images as rows of a NumPy file, as CIFAR-C is published."""

import os
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import open_regular
from accel_trainer.core.outage import persistently
from accel_trainer.data.dataset import LabelArray
from accel_trainer.data.decode import from_array
from accel_trainer.data.listing import Numbers

DIMENSIONS, CHANNELS = 4, 3
PIXEL_TYPE = np.dtype(np.uint8)


class ArrayFile:
    """A .npy of uint8 (n, height, width, 3), of which single images are read: no more of it is in memory."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for what is no such file, or is cut off."""
        self.path = path
        try:
            shape, self._start, has_rows = persistently(partial(_header, path), lambda: str(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"cannot be read as an array: {reason}", where=path) from error
        if not has_rows or len(shape) != DIMENSIONS or shape[3] != CHANNELS:
            raise UserError(
                f"has an array of shape {shape}; images are uint8 (n, height, width, 3) in C order", where=path
            )
        self.shape = shape
        self._bytes = int(np.prod(shape[1:]))
        expected = self._start + shape[0] * self._bytes
        if (there := path.stat().st_size) != expected:
            raise UserError(
                f"has {there:,} bytes, and {shape[0]:,} images need {expected:,}: fetch it again", where=path
            )

    def row(self, index: int) -> np.ndarray:
        """uint8 (height, width, 3). Raises OSError."""
        return persistently(partial(self._row, index), lambda: str(self.path))

    def _row(self, index: int) -> np.ndarray:
        with _opened(self.path) as file:
            file.seek(self._start + index * self._bytes)
            content = file.read(self._bytes)
        if len(content) != self._bytes:
            raise OSError(None, "was cut off while it was read", str(self.path))
        return np.frombuffer(content, np.uint8).reshape(self.shape[1:])


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(open_regular(path), "rb")


def _header(path: Path) -> tuple[tuple[int, ...], int, bool]:
    """The shape, where the data begin, and whether they are bytes, row by row. Raises OSError and ValueError."""
    with _opened(path) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, kind = read(file)
        return shape, file.tell(), kind == PIXEL_TYPE and not is_fortran


class ArrayImages:
    """Some rows of a file of images, with labels. Their names are their numbers, from 0, in this part."""

    def __init__(self, file: ArrayFile, start: int, labels: LabelArray, classes: Sequence[str]) -> None:
        self._file, self._start, self.labels, self.classes = file, start, labels, classes

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises OSError."""
        return from_array(self._file.row(self._start + index))

    def describe(self, index: int) -> str:
        """File and number."""
        return f"{self._file.path} {self._start + index}"

    def names(self, indices: Numbers) -> list[str]:
        """Numbers."""
        return [str(index) for index in indices.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Checksums of the pixels."""
        rows = (self._file.row(self._start + index) for index in indices.tolist())
        return np.array([zlib.crc32(row.tobytes()) for row in rows], dtype=np.int64)
