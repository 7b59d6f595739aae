"""Where images come from: folders, Hugging Face datasets, and a set that comes with the package."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.data.decode import CorruptImage, decode, from_array
from accel_trainer.errors import UserError, did_you_mean, listed

log = logging.getLogger(__name__)

# As in torchvision.datasets.folder.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
BUNDLED = ("digits",)
MAX_NAMED = 20

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
    """What a job trains and validates on. Both have the same classes."""

    train: Source
    val: Source

    @property
    def classes(self) -> Sequence[str]:
        return self.train.classes


def open_images(job: Job) -> ImageSet:
    """The data set that a job names, with its class_subset. Raises UserError."""
    if job.dataset.startswith("hf:"):
        sources = _open_hugging_face(job)
    elif job.dataset in BUNDLED:
        sources = ImageSet(Digits("train"), Digits("val"))
    else:
        sources = _open_folders(job)
    if job.class_subset is not None:
        sources = ImageSet(ClassSubset(sources.train, job.class_subset), ClassSubset(sources.val, job.class_subset))
    for split, source in (("train", sources.train), ("val", sources.val)):
        counts = np.bincount(source.labels, minlength=len(source.classes))
        if empty := [name for name, count in zip(source.classes, counts, strict=True) if count == 0]:
            raise UserError(f"dataset: {job.dataset!r} has no {split} images of class {listed(empty)}")
    return sources


# -- folders ---------------------------------------------------------------------------------------------


class ImageFolder:
    """`<folder>/<class>/**/<image>`; classes and images sorted by name, as torchvision's ImageFolder has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.classes = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
        if not self.classes:
            raise UserError(f"dataset: {folder} has no class folders in it")
        self._paths: list[str] = []
        counts, others = [], []
        for name in self.classes:
            images, not_images = _images_below(folder / name)
            self._paths += images
            counts.append(len(images))
            others += not_images
        for path in others[:MAX_NAMED]:
            log.warning("skipped %s: not an image file", path)
        if others:
            log.warning("%d files that are not images were skipped in %s", len(others), folder)
        self.labels: Labels = np.repeat(np.arange(len(counts)), counts)

    def read(self, index: int) -> Tensor:
        try:
            return decode(Path(self._paths[index]).read_bytes())
        except OSError as error:
            raise CorruptImage(error.strerror or str(error)) from error

    def describe(self, index: int) -> str:
        return self._paths[index]


def _images_below(folder: Path) -> tuple[list[str], list[str]]:
    """Paths of images, and of other files that are not hidden, at any depth; both sorted."""
    images: list[str] = []
    others: list[str] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                images.append(f"{parent}/{name}")
            elif not name.startswith("."):
                others.append(f"{parent}/{name}")
    return images, others


def _open_folders(job: Job) -> ImageSet:
    root = Path(job.data_root).expanduser()
    folder = root / job.dataset
    if not folder.is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        found = f"{root} has {listed(there)}" if there else f"there are no folders in {root}"
        raise UserError(
            f"dataset: no folder {folder}; {found}; bundled: {', '.join(BUNDLED)}"
            f"{did_you_mean(job.dataset, [*there, *BUNDLED])}"
        )
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            raise UserError(f"dataset: {folder} has no folder {split}/ with a folder for each class")
    train, val = ImageFolder(folder / "train"), ImageFolder(folder / "val")
    _same_classes(job, train, val)
    return ImageSet(train, val)


def _same_classes(job: Job, train: Source, val: Source) -> None:
    only_train = [name for name in train.classes if name not in set(val.classes)]
    only_val = [name for name in val.classes if name not in set(train.classes)]
    if only_train or only_val:
        where = " and ".join(
            f"{listed(names)} only in {split}" for split, names in (("train", only_train), ("val", only_val)) if names
        )
        raise UserError(f"dataset: {job.dataset!r} has other classes in train than in val: {where}")


# -- Hugging Face datasets ---------------------------------------------------------------------------------


class HuggingFace:
    """One split of a Hugging Face dataset; images are decoded here, by the same code as files."""

    def __init__(self, split: Any, image_column: str, label_column: str, classes: Sequence[Any]) -> None:
        from datasets import Image

        self.classes = [str(name) for name in classes]
        raw = split[label_column]
        number = {name: i for i, name in enumerate(classes)}
        is_indexed = hasattr(split.features[label_column], "names")
        self.labels: Labels = np.asarray([label if is_indexed else number[label] for label in raw], dtype=np.int64)
        if self.labels.size and self.labels.min() < 0:
            raise UserError(f"dataset: some images have no label (column {label_column!r} has -1)")
        self._rows = split.select_columns([image_column]).cast_column(image_column, Image(decode=False))
        self._column = image_column

    def read(self, index: int) -> Tensor:
        row = self._rows[int(index)][self._column]
        if row is None:
            raise CorruptImage("the row has no image")
        try:
            return decode(row["bytes"] if row["bytes"] is not None else Path(row["path"]).read_bytes())
        except OSError as error:
            raise CorruptImage(error.strerror or str(error)) from error

    def describe(self, index: int) -> str:
        row = self._rows[int(index)][self._column] or {}
        return f"row {index} ({row['path']})" if row.get("path") else f"row {index}"


def _open_hugging_face(job: Job) -> ImageSet:
    splits = _load_splits(job.dataset.removeprefix("hf:"))
    train_name = _first(splits, ("train", "training"), job)
    val_name = _first(splits, ("val", "validation", "valid", "dev", "test"), job)
    train, val = splits[train_name], splits[val_name]
    image = job.image_column or _find_column(train, "image", lambda f: type(f).__name__ == "Image", ("image", "img"))
    label = job.label_column or _find_column(
        train, "label", lambda f: type(f).__name__ == "ClassLabel", ("label", "labels", "class", "target")
    )
    for key, column in (("image_column", image), ("label_column", label)):
        if column not in train.features:
            raise UserError(
                f"{key}: no column {column!r}; there are {listed(train.features)}{did_you_mean(column, train.features)}"
            )
    names = getattr(train.features[label], "names", None) or sorted({*train[label], *val[label]})
    return ImageSet(HuggingFace(train, image, label, names), HuggingFace(val, image, label, names))


def _load_splits(name: str) -> Any:
    """A hub id, a folder of `save_to_disk`, a folder of images, or a folder or file of parquet or arrow."""
    import datasets

    datasets.disable_progress_bars()
    path = Path(name).expanduser()
    try:
        if (path / "dataset_dict.json").exists():
            return datasets.load_from_disk(str(path))
        if path.is_dir():
            for suffix, builder in ((".parquet", "parquet"), (".arrow", "arrow")):
                if found := sorted(path.rglob(f"*{suffix}")):
                    return datasets.load_dataset(builder, data_files=_by_split(found))
        return datasets.load_dataset(str(path) if path.exists() else name)
    except Exception as error:  # the library raises a great many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"dataset: 'hf:{name}' is neither a folder here nor a data set that the hub gives out: {reason}"
        ) from error


def _by_split(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Files by the split that their name or folder begins with: `train-00000.parquet`, `validation/0.arrow`."""
    by_split: dict[str, list[str]] = {}
    for path in paths:
        words = [path.stem.split("-")[0].split("_")[0].lower(), path.parent.name.lower()]
        known = [w for w in words if w in ("train", "training", "val", "validation", "valid", "dev", "test")]
        by_split.setdefault(known[0] if known else "train", []).append(str(path))
    return by_split


def _first(splits: Any, names: Sequence[str], job: Job) -> str:
    for name in names:
        if name in splits:
            return name
    raise UserError(f"dataset: {job.dataset!r} has no split {' or '.join(names)}; it has {listed(splits)}")


def _find_column(split: Any, what: str, has_type: Any, names: Sequence[str]) -> str:
    of_type = [column for column, feature in split.features.items() if has_type(feature)]
    if len(of_type) == 1:
        return str(of_type[0])
    named = [column for column in names if column in (of_type or split.features)]
    if named:
        return named[0]
    raise UserError(
        f"{what}_column: cannot tell which column has the {what}s; name one of {listed(of_type or split.features)}"
    )


# -- bundled -------------------------------------------------------------------------------------------------


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


# -- some classes only -----------------------------------------------------------------------------------------


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
