"""Handwritten digits that come with the package."""

import zlib
from collections.abc import Callable
from importlib.resources import files

import numpy as np
from torch import Tensor

from accel_trainer.data.dataset import LabelArray
from accel_trainer.data.decode import from_array
from accel_trainer.data.listing import Numbers

BUNDLED = ("digits",)


class Digits:
    """Handwritten digits, 8x8 gray: the test set of the UCI Optical Recognition of Handwritten Digits data set
    (Alpaydin and Kaynak, 1998; CC BY 4.0) that scikit-learn's load_digits gives, 1,797 images. A quarter of
    every class is held out for validation.
    """

    def __init__(self, split: str) -> None:
        with files("accel_trainer.data.sources").joinpath("digits.npz").open("rb") as file, np.load(file) as stored:
            chosen = stored[split]
            self._images = stored["images"][chosen]
            self.labels: LabelArray = stored["labels"][chosen]
        self.classes = [str(digit) for digit in range(10)]
        self._split = split

    def read(self, index: int) -> Tensor:
        """uint8 (3, 8, 8), gray."""
        return from_array(np.repeat(self._images[index][:, :, None], 3, axis=2))

    def describe(self, index: int) -> str:
        """Split and number."""
        return f"digits {self._split} {index}"

    def names(self, indices: Numbers) -> list[str]:
        """The numbers of images."""
        return [str(index) for index in indices.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Checksums of the pixels."""
        return np.array([zlib.crc32(self._images[index].tobytes()) for index in indices.tolist()], dtype=np.int64)
