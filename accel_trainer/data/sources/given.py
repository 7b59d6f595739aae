"""Images without classes: the files below a folder, or images that a caller has in memory."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import persistently
from accel_trainer.data.dataset import LabelArray
from accel_trainer.data.decode import ImageLike, decode, read_encoded, to_pixels
from accel_trainer.data.listing import Numbers, file_sizes
from accel_trainer.data.sources.folders import IMAGE_SUFFIXES
from accel_trainer.data.sources.walk import files_below


class ImageFiles:
    """Files below a folder, in the order given. All have label 0."""

    classes: Sequence[str] = ("",)

    def __init__(self, paths: Sequence[str], folder: str) -> None:
        self.paths, self._folder = list(paths), folder
        self.labels: LabelArray = np.zeros(len(self.paths), dtype=np.int64)

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage and OSError."""
        return decode(self.encoded(index))

    def encoded(self, index: int) -> bytes:
        """The bytes of the file. Raises as `read`."""
        return read_encoded(self.paths[index])

    def describe(self, index: int) -> str:
        """The path of the file."""
        return self.paths[index]

    def names(self, indices: Numbers) -> list[str]:
        """The paths, below the folder that they were found in."""
        return [os.path.relpath(self.paths[index], self._folder) for index in indices.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """The sizes of the files."""
        return file_sizes([self.paths[index] for index in indices.tolist()], is_canceled)


class GivenImages:
    """Images of a caller, as `to_pixels` takes them, in the order given. All have label 0."""

    classes: Sequence[str] = ("",)

    def __init__(self, images: Sequence[ImageLike]) -> None:
        self._images = images
        self.labels: LabelArray = np.zeros(len(images), dtype=np.int64)

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage, and as `to_pixels`."""
        return to_pixels(self._images[index])

    def describe(self, index: int) -> str:
        """The path, where the image is one; else its number."""
        image = self._images[index]
        return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {index}"


def images_below(folder: Path) -> ImageFiles:
    """All images at any depth below a folder, sorted by path. Raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder", key="images")
    try:
        found = persistently(partial(files_below, folder, IMAGE_SUFFIXES), lambda: str(folder))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", key="images") from error
    paths = sorted(path for path in found.paths if path.lower().endswith(IMAGE_SUFFIXES))
    if not paths:
        raise UserError(f"{folder}: no image in it ({', '.join(IMAGE_SUFFIXES)})", key="images")
    return ImageFiles(paths, str(folder))
