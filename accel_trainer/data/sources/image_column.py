"""The images of a Hugging Face dataset: encoded ones in columns of several types, and pixels in lists."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from accel_trainer.data.dataset import LabelArray
from accel_trainer.data.decode import CorruptImage, from_array
from accel_trainer.data.listing import Numbers, file_stamps

_BINARY = ("binary", "large_binary")


def has_images(feature: Any) -> bool:
    """Whether a column has encoded images: the library's own type, or as pandas writes them, bytes alone or in a
    dict. Names of files are not enough: they mean others wherever the job runs."""
    if isinstance(feature, dict):
        return "bytes" in feature and set(feature) <= {"bytes", "path"} and has_images(feature["bytes"])
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", None) in _BINARY


def has_arrays(feature: Any) -> bool:
    """Whether a column has pixels: lists of lists of integers, (height, width) or (height, width, 3)."""
    if type(feature).__name__ in ("Array2D", "Array3D"):
        return "int" in feature.dtype
    depth, inner = 0, feature
    while hasattr(inner, "feature"):  # of the library's List, LargeList and Sequence
        depth, inner = depth + 1, inner.feature
    return depth in (2, 3) and "int" in str(getattr(inner, "dtype", ""))


def as_images(split: Any, column: str) -> Any:
    """The column alone, each row as {"bytes": ..., "path": ...}."""
    from datasets import Image

    return split.select_columns([column]).cast_column(column, Image(decode=False))


class ImageArrays:
    """One split whose images are pixels in lists of numbers, as pandas writes arrays. They are read slowly: store
    encoded images, or make a pack."""

    def __init__(self, split: Any, column: str, labels: LabelArray, classes: Sequence[Any]) -> None:
        self.classes = [str(name) for name in classes]
        self.labels = labels
        self._rows = split.select_columns([column]).with_format("arrow")

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage for other shapes, and for numbers beyond 0 to 255."""
        row = self._rows[int(index)].column(0)[0].as_py()
        if row is None:
            raise CorruptImage("the row has no image")
        try:
            pixels = np.array(row)
        except ValueError as error:
            raise CorruptImage("its rows are of different lengths") from error
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.dtype.kind not in "iu" or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            raise CorruptImage(f"an array of shape {pixels.shape} and {pixels.dtype} is no image (height, width, 3)")
        if pixels.min() < 0 or pixels.max() > 255:
            raise CorruptImage(f"its pixels are from {pixels.min()} to {pixels.max()}, not from 0 to 255")
        return from_array(np.broadcast_to(pixels.astype(np.uint8), (*pixels.shape[:2], 3)))

    def describe(self, index: int) -> str:
        """The number of the row."""
        return f"row {index}"

    def names(self, indices: Numbers) -> list[str]:
        """The numbers of rows."""
        return [f"row {index}" for index in indices.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """CRC-32 of shape and pixels, -1 of what is no image."""
        return self._of_each(indices, _checksum)

    def earlier_marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Sums of the pixels, which an image that is mirrored has, too."""
        return self._of_each(indices, lambda image: int(image.long().sum()))

    def stamps(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Of the files that the table is in, the same for all."""
        return table_stamps(self._rows, len(indices), is_canceled)

    def _of_each(self, indices: Numbers, number: Callable[[Tensor], int]) -> Numbers:
        def of(index: int) -> int:
            try:
                return number(self.read(index))
            except CorruptImage:
                return -1

        return np.array([of(index) for index in indices.tolist()], dtype=np.int64)


def _checksum(image: Tensor) -> int:
    return zlib.crc32(image.contiguous().numpy().data, zlib.crc32(repr(tuple(image.shape)).encode()))


def table_stamps(split: Any, count: int, is_canceled: Callable[[], bool]) -> Numbers:
    """What changes when a file of a table is written, for so many rows: int64 (count,). Raises Canceled."""
    paths = [str(file["filename"]) for file in split.cache_files]
    stamp = zlib.crc32(file_stamps(paths, is_canceled).tobytes())
    return np.full(count, stamp, np.int64)
