"""Images in folders, one for each class."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.data.dataset import LabelArray, Splits, require_same_classes
from accel_trainer.data.decode import read_image

log = logging.getLogger(__name__)

# As in torchvision.datasets.folder.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
MAX_NAMED = 20


class ImageFolder:
    """`<folder>/<class>/**/<image>`; classes and images sorted by name, as torchvision's ImageFolder has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.classes = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
        if not self.classes:
            raise UserError(f"{folder} has no class folders in it", key="dataset")
        counts: list[int] = []
        others: list[str] = []

        def images_of_each() -> Iterator[list[str]]:
            for name in self.classes:
                images, not_images = _images_below(folder / name)
                counts.append(len(images))
                others.extend(not_images)
                yield images

        self._paths = _Paths(folder, images_of_each())
        for path in others[:MAX_NAMED]:
            log.warning("skipped %s: not an image file", path)
        if others:
            log.warning("%d files that are not images were skipped in %s", len(others), folder)
        self.labels: LabelArray = np.repeat(np.arange(len(counts)), counts)

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage."""
        return read_image(self._paths[index])

    def describe(self, index: int) -> str:
        """The path of the file."""
        return self._paths[index]


class _Paths:
    """Paths below a folder: a million of them in a third of the memory that as many strings take."""

    def __init__(self, folder: Path, parts: Iterable[Sequence[str]]) -> None:
        self._folder = str(folder / "_")[:-1]
        joined, lengths = bytearray(), []
        for paths in parts:
            names = [os.fsencode(path.removeprefix(self._folder)) for path in paths]
            joined += b"".join(names)
            lengths.append(np.fromiter(map(len, names), np.int64, len(names)))
        self._joined = bytes(joined)
        self._ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])

    def __getitem__(self, index: int) -> str:
        start, end = self._ends[index], self._ends[index + 1]
        return self._folder + os.fsdecode(self._joined[start:end])


def _images_below(folder: Path) -> tuple[list[str], list[str]]:
    """Paths of images and of other files at any depth, in torchvision's order; what is hidden does not count."""
    walked = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        walked.append((parent, sorted(name for name in names if not name.startswith("."))))
    paths = [f"{parent}/{name}" for parent, names in sorted(walked) for name in names]
    images = [path for path in paths if path.lower().endswith(IMAGE_SUFFIXES)]
    return images, [path for path in paths if not path.lower().endswith(IMAGE_SUFFIXES)]


def open_folders(root: Path, name: str, bundled: tuple[str, ...]) -> Splits:
    """`<root>/<name>/{train,val}/<class>/`. Raises UserError, naming what is there and what comes bundled."""
    folder = _find(root, name, bundled)
    train, val = (_open_split(folder, split) for split in ("train", "val"))
    require_same_classes(name, train.classes, val.classes)
    return Splits(train, val)


def open_validation_folder(root: Path, name: str, bundled: tuple[str, ...]) -> ImageFolder:
    """`<root>/<name>/val/<class>/`, whatever else is there. Raises UserError as `open_folders`."""
    return _open_split(_find(root, name, bundled), "val")


def _find(root: Path, name: str, bundled: tuple[str, ...]) -> Path:
    folder = root / name
    if not folder.is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        found = f"{root} has {listed(there)}" if there else f"there are no folders in {root}"
        near = did_you_mean(name, [*there, *bundled])
        raise UserError(f"no folder {folder}; {found}; bundled: {', '.join(bundled)}{near}", key="dataset")
    return folder


def _open_split(folder: Path, split: str) -> ImageFolder:
    if not (folder / split).is_dir():
        raise UserError(f"{folder} has no folder {split}/ with a folder for each class", key="dataset")
    return ImageFolder(folder / split)
