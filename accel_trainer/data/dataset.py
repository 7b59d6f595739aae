"""What a data set is: sources of labeled images, splits, subsets, other labels."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.data.listing import Listed, MarkedOtherwise, Numbers, Stamped
from accel_trainer.data.native.images import Images
from accel_trainer.data.native.stored import StoredImages

LabelArray = npt.NDArray[np.int64]


class ImageDataset(Protocol):
    """Images with labels, by index; `read` may be called from many threads at once."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels."""
        ...

    @property
    def labels(self) -> LabelArray:
        """int64 of shape (number of images,), each in 0..len(classes)-1."""
        ...

    def read(self, index: int) -> Tensor:
        """uint8 pixels of shape (3, height, width).

        Raises CorruptImage for what was read whole and is no image; OSError where it cannot be read.
        """
        ...

    def describe(self, index: int) -> str:
        """What to call this image in a message: its path where it has one."""
        ...


@runtime_checkable
class ReadsTogether(Protocol):
    """A source that can read several images at once."""

    def read_together(self, indices: LabelArray) -> Images | None:
        """The pixels of the first one or more of these images, as many as fit into the processor's caches.

        indices: int64, one or more. None where they are to be read one by one, which says of each what is wrong with
        it.
        """
        ...


@runtime_checkable
class StoresPixels(Protocol):
    """A source that may have pixels in a file as they are."""

    def stored(self, indices: LabelArray) -> StoredImages | None:
        """Where these images are; None where they are to be read otherwise."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that can have the system read what it will be asked for."""

    def will_need(self, indices: LabelArray) -> None:
        """These images are read soon. Waits for nothing."""
        ...


@runtime_checkable
class StoresEncoded(Protocol):
    """A source whose images may be stored encoded, as JPEG or otherwise."""

    def encoded(self, index: int) -> bytes | None:
        """What `read` decodes; None where it decodes nothing. Raises as `read`."""
        ...


def name_or_number(source: ImageDataset, index: int) -> str:
    """What to call an image in a message, also where its name is on a disk that is away."""
    try:
        return source.describe(index)
    except OSError:
        return f"image {index}"


@dataclass(frozen=True)
class Splits:
    """What a job trains and validates on. All have the same classes."""

    train: ImageDataset
    val: ImageDataset
    eval_sets: Mapping[str, ImageDataset] = field(default_factory=dict)
    """More to validate on, by what performance.csv calls it."""
    notes: Sequence[str] = ()
    """What there is to say of them: which splits there are, what was left out."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels; the same in every split."""
        return self.train.classes


def normal_form(name: str) -> str:
    """A name in the one spelling (Unicode's NFC) of all that look like it: an e with an acute is one character or two,
    and disks, archives and operating systems do not agree which."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return "".join(normal_form(name).casefold().split())


def require_distinct_names(names: Sequence[str], where: str) -> None:
    """Refuse two classes that a reader cannot tell apart. where: has them, in messages."""
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(normal_form(name), name)) != name:
            raise UserError(
                f"{where} has two classes that are written alike, {other!a} and {name!a}",
                key="dataset",
                hint="they are one name in two forms of Unicode (NFC and NFD): join them",
            )


def require_same_classes(name: str, train: Sequence[str], val: Sequence[str]) -> None:
    """Refuse a data set whose splits have different classes: their labels would mean different things. Two forms of
    Unicode of one name are one class."""
    in_train, in_val = ({normal_form(one): one for one in names} for names in (train, val))
    only = {
        "train": sorted(in_train[one] for one in in_train.keys() - in_val.keys()),
        "val": sorted(in_val[one] for one in in_val.keys() - in_train.keys()),
    }
    if differences := [f"{listed(names)} only in {split}" for split, names in only.items() if names]:
        near = [(one, other) for one in only["train"] for other in only["val"] if _folded(one) == _folded(other)]
        raise UserError(
            f"{name!r} has other classes in train than in val: {' and '.join(differences)}",
            key="dataset",
            hint=f"{near[0][0]!r} and {near[0][1]!r} differ in capitals or spaces only: rename one" if near else None,
        )


def labeled_as(source: ImageDataset, classes: Sequence[str]) -> ImageDataset:
    """A split whose classes are these, but for the form of Unicode and the order, with labels that say the same."""
    if list(source.classes) == list(classes):
        return source
    number = {normal_form(name): label for label, name in enumerate(classes)}
    return Relabeled(source, np.array([number[normal_form(name)] for name in source.classes]), classes)


class Relabeled:
    """The images of a source, label l as `new_labels[l]`, or left out where that is -1."""

    def __init__(self, source: ImageDataset, new_labels: LabelArray, classes: Sequence[str]) -> None:
        self.source, self.classes = source, classes
        labels = new_labels[source.labels]
        self._indices = np.flatnonzero(labels >= 0)
        self.labels: LabelArray = labels[self._indices]

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage and OSError."""
        return self.source.read(int(self._indices[index]))

    def read_together(self, indices: LabelArray) -> Images | None:
        """Those of the source, where it can."""
        return self.source.read_together(self._indices[indices]) if isinstance(self.source, ReadsTogether) else None

    def stored(self, indices: LabelArray) -> StoredImages | None:
        """Those of the source, where it has them."""
        return self.source.stored(self._indices[indices]) if isinstance(self.source, StoresPixels) else None

    def will_need(self, indices: LabelArray) -> None:
        """Of the source, where it can."""
        if isinstance(self.source, ReadsAhead):
            self.source.will_need(self._indices[indices])

    def encoded(self, index: int) -> bytes | None:
        """Those of the source, where it has such bytes. Raises CorruptImage and OSError."""
        return self.source.encoded(int(self._indices[index])) if isinstance(self.source, StoresEncoded) else None

    def base(self, indices: Numbers) -> tuple[ImageDataset, Numbers]:
        """The source, and which of its images these are."""
        return self.source, self._indices[indices]

    def describe(self, index: int) -> str:
        """What the source calls the image."""
        return self.source.describe(int(self._indices[index]))

    def names(self, indices: Numbers) -> list[str]:
        """Those of the source; numbers where it has none."""
        own = self._indices[indices]
        return self.source.names(own) if isinstance(self.source, Listed) else [str(index) for index in own.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Those of the source; 0 where it has none."""
        if isinstance(self.source, Listed):
            return self.source.marks(self._indices[indices], is_canceled)
        return np.zeros(len(indices), dtype=np.int64)

    def earlier_marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Those of the source."""
        if isinstance(self.source, MarkedOtherwise):
            return self.source.earlier_marks(self._indices[indices], is_canceled)
        return self.marks(indices, is_canceled)

    def stamps(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Those of the source; 0 where it has none."""
        if isinstance(self.source, Stamped):
            return self.source.stamps(self._indices[indices], is_canceled)
        return np.zeros(len(indices), dtype=np.int64)


class ClassSubset(Relabeled):
    """The images of some classes, whose labels become 0..k-1 in the order of `chosen`. Raises UserError."""

    def __init__(self, source: ImageDataset, chosen: Sequence[int]) -> None:
        if beyond := [i for i in chosen if i >= len(source.classes)]:
            raise UserError(
                f"no class {listed(map(str, beyond))}; there are {len(source.classes)}, from 0", key="class_subset"
            )
        new_labels = np.full(len(source.classes), -1)
        new_labels[list(chosen)] = np.arange(len(chosen))
        super().__init__(source, new_labels, [source.classes[i] for i in chosen])
