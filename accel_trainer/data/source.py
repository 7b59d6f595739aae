"""What a source of images is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed

Labels = npt.NDArray[np.int64]


class Source(Protocol):
    """Images with labels, by index; `read` may be called from many threads at once."""

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def labels(self) -> Labels:
        """int64 of shape (number of images,), each in 0..len(classes)-1."""
        ...

    def read(self, index: int) -> Tensor:
        """uint8 pixels of shape (3, height, width). Raises CorruptImage."""
        ...

    def describe(self, index: int) -> str:
        """What to call this image in a message: its path where it has one."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """What a job trains and validates on. All have the same classes."""

    train: Source
    val: Source
    further: Mapping[str, Source] = field(default_factory=dict)
    """More to validate on, by what performance.csv calls it."""

    @property
    def classes(self) -> Sequence[str]:
        return self.train.classes


def require_same_classes(name: str, train: Sequence[str], val: Sequence[str]) -> None:
    """Refuse a data set whose splits have different classes: their labels would mean different things."""
    only = {"train": sorted(set(train) - set(val)), "val": sorted(set(val) - set(train))}
    if told := [f"{listed(names)} only in {split}" for split, names in only.items() if names]:
        raise UserError(f"dataset: {name!r} has other classes in train than in val: {' and '.join(told)}")
