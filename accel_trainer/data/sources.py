"""The images that a job names: folders, Hugging Face datasets, or a set that comes with the package."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.data.decode import from_array
from accel_trainer.data.folders import open_folders
from accel_trainer.data.source import ImageSet, Labels, Source
from accel_trainer.errors import UserError, listed

BUNDLED = ("digits",)


def open_images(job: Job) -> ImageSet:
    """The data set that a job names, with its class_subset. Raises UserError."""
    images = _open_whole(job)
    if job.class_subset is not None:
        images = ImageSet(ClassSubset(images.train, job.class_subset), ClassSubset(images.val, job.class_subset))
    for split, source in (("train", images.train), ("val", images.val)):
        counts = np.bincount(source.labels, minlength=len(source.classes))
        if empty := [name for name, count in zip(source.classes, counts, strict=True) if count == 0]:
            raise UserError(f"dataset: {job.dataset!r} has no {split} images of class {listed(empty)}")
    return images


def _open_whole(job: Job) -> ImageSet:
    if job.dataset.startswith("hf:"):
        from accel_trainer.data.hugging_face import open_hugging_face

        return open_hugging_face(job.dataset.removeprefix("hf:"), job.image_column, job.label_column)
    if job.dataset in BUNDLED:
        return ImageSet(Digits("train"), Digits("val"))
    return open_folders(Path(job.data_root).expanduser(), job.dataset, BUNDLED)


class Digits:
    """Handwritten digits, 8x8 grey: the test set of the UCI Optical Recognition of Handwritten Digits data set
    (Alpaydin and Kaynak, 1998; CC BY 4.0) that scikit-learn's load_digits gives, 1,797 images. A quarter of
    every class is held out for validation.
    """

    def __init__(self, split: str) -> None:
        with files("accel_trainer.data").joinpath("digits.npz").open("rb") as file, np.load(file) as stored:
            chosen = stored[split]
            self._images = stored["images"][chosen]
            self.labels: Labels = stored["labels"][chosen]
        self.classes = [str(digit) for digit in range(10)]
        self._split = split

    def read(self, index: int) -> Tensor:
        return from_array(np.repeat(self._images[index][:, :, None], 3, axis=2))

    def describe(self, index: int) -> str:
        return f"digits {self._split} {index}"


@dataclass(frozen=True)
class ClassSubset:
    """The images of some classes, whose labels become 0..k-1 in the order of `chosen`."""

    source: Source
    chosen: Sequence[int]

    def __post_init__(self) -> None:
        if beyond := [i for i in self.chosen if i >= len(self.source.classes)]:
            raise UserError(
                f"class_subset: no class {listed(map(str, beyond))}; there are {len(self.source.classes)}, from 0"
            )

    @property
    def classes(self) -> Sequence[str]:
        return [self.source.classes[i] for i in self.chosen]

    @cached_property
    def _indices(self) -> Labels:
        return np.flatnonzero(np.isin(self.source.labels, self.chosen))

    @cached_property
    def labels(self) -> Labels:
        new_label = np.full(len(self.source.classes), -1)
        new_label[list(self.chosen)] = np.arange(len(self.chosen))
        return new_label[self.source.labels[self._indices]]

    def read(self, index: int) -> Tensor:
        return self.source.read(int(self._indices[index]))

    def describe(self, index: int) -> str:
        return self.source.describe(int(self._indices[index]))
