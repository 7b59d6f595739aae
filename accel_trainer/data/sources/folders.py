"""Images in folders, one for each class."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor

from accel_trainer.config.dataset_names import HF
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import Missing, is_folder, persistently, refuse_if_expected
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.data.contents import Contents
from accel_trainer.data.dataset import LabelArray, Splits, labeled_as, require_distinct_names, require_same_classes
from accel_trainer.data.decode import decode, read_encoded
from accel_trainer.data.listing import Numbers, file_sizes, file_stamps
from accel_trainer.data.sources.one_label import OneLabel
from accel_trainer.data.sources.split_names import Role, role_of
from accel_trainer.data.sources.walk import FETCH, Found, files_below, folders_in, require_targets

T = TypeVar("T")
log = logging.getLogger(__name__)

# As in torchvision.datasets.folder.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
MAX_NAMED = 20


class ImageFolder:
    """`<folder>/<class>/**/<image>`; classes and images sorted by name, as torchvision's ImageFolder has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contents: Contents | None = None
        classes = _read_folder(folder, _class_folders)
        self.classes = [Path(path).name for path in classes.paths]
        require_distinct_names(self.classes, str(folder))
        self._paths, below = _walked(folder, self.classes)
        counts, others, again = below.counts, below.others, [*classes.left_out, *below.again]
        _name_skipped(others, "not an image file", f"files that are not images were skipped in {folder}")
        _name_skipped(again, "a link to what is there anyway", f"links were skipped in {folder}")
        self.links_left_out = len(again)
        self.notes = list(_notes(folder, others, classes.hidden, again))
        """What was left out, for people."""
        self.labels: LabelArray = np.repeat(np.arange(len(counts)), counts)
        for name, count in zip(self.classes, counts, strict=True):
            if not count:
                refuse_if_expected(folder, f"{folder / name} has no images in it")

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage and OSError; UserError for an image that has changed."""
        return decode(self.encoded(index))

    def encoded(self, index: int) -> bytes:
        """The bytes of the file. Raises as `read`."""
        path = self._paths[index]
        content = read_encoded(path)
        if self.contents is not None:
            self.contents.note(index, content, path)
        return content

    def describe(self, index: int) -> str:
        """The path of the file."""
        return self._paths[index]

    def names(self, indices: Numbers) -> list[str]:
        """The paths of images, each below the folder of its class."""
        lengths = np.array([len(os.fsencode(name)) + 1 for name in self.classes], dtype=np.int64)
        return self._paths.without_beginning(indices, lengths[self.labels[indices]])

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """The sizes of the files."""
        return file_sizes([self._paths[index] for index in indices.tolist()], is_canceled)

    def stamps(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Of the files."""
        return file_stamps([self._paths[index] for index in indices.tolist()], is_canceled)


@dataclass
class _Below:
    """What is below the classes of a split. nowhere: links that lead nowhere."""

    folder: Path
    counts: list[int] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    nowhere: list[str] = field(default_factory=list)

    def images_of_each(self, classes: Sequence[str]) -> Iterator[list[str]]:
        """The paths of the images, class by class, while the rest is noted. Raises UserError."""
        one_label = OneLabel(self.folder)
        for name in classes:
            found = _read_folder(self.folder / name, partial(files_below, suffixes=IMAGE_SUFFIXES))
            images, others = _by_suffix(found.paths)
            self.counts.append(len(images))
            self.others += others
            self.again += found.left_out
            self.nowhere += found.nowhere
            one_label.add(found)
            yield images
        _read_folder(self.folder, lambda folder: one_label.refuse_two())


def _walked(folder: Path, classes: Sequence[str]) -> tuple["_Paths", _Below]:
    """What is below the classes of a split. Raises UserError, also for links that lead nowhere where nobody waits."""
    while True:
        below = _Below(folder)
        paths = _Paths(folder, below.images_of_each(classes))
        if not below.nowhere:
            return paths, below
        _read_folder(folder, partial(require_targets, below.nowhere), hint=FETCH)


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

    def without_beginning(self, indices: Numbers, lengths: Numbers) -> list[str]:
        """Paths below the folder, each without so many bytes at its beginning."""
        starts, ends, joined = (self._ends[indices] + lengths).tolist(), self._ends[indices + 1].tolist(), self._joined
        return [joined[start:end].decode(errors="surrogateescape") for start, end in zip(starts, ends, strict=True)]


def _class_folders(folder: Path) -> Found:
    """Raises OSError, also where there are none; Missing where a link leads nowhere: its class may be on a disk that is
    away."""
    found = folders_in(folder)
    if found.nowhere:
        names = listed(Path(path).name for path in found.nowhere)
        raise Missing(f"has links that lead nowhere: {names}", folder)
    if not found.paths:
        raise Missing("has no class folders in it", folder)
    return found


def _read_folder(folder: Path, read: Callable[[Path], T], hint: str | None = None) -> T:
    """Raises UserError for a folder that cannot be read, where nobody waits until it can."""
    try:
        return persistently(partial(read, folder), lambda: str(folder), may_be_missing=True)
    except Missing as error:
        raise UserError(f"{folder} {error.strerror}", key="dataset", hint=hint) from error
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where} cannot be read: {error.strerror or error}", key="dataset") from error


def _notes(folder: Path, others: Sequence[str], hidden: Sequence[str], links: Sequence[str]) -> Iterator[str]:
    if others:
        kinds = Counter(Path(path).suffix.lower() or "none" for path in others)
        ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        of_each = listed((f"{kind} ({count:,})" for kind, count in ordered), 5)
        yield f"files in {folder} that are not read as images, by their suffixes: {of_each}"
    if hidden:
        yield f"{folder} has folders that are no classes, by their names: {listed(Path(path).name for path in hidden)}"
    if links:
        yield f"{len(links):,} links in {folder} lead to what is there anyway"


def _by_suffix(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Images, and other files."""
    images = [path for path in paths if path.lower().endswith(IMAGE_SUFFIXES)]
    return images, [path for path in paths if not path.lower().endswith(IMAGE_SUFFIXES)]


def _name_skipped(paths: Sequence[str], why: str, all_of_them: str) -> None:
    for path in paths[:MAX_NAMED]:
        log.warning("skipped %s: %s", path, why)
    if paths:
        log.warning("%d %s", len(paths), all_of_them)


def open_folders(root: Path, name: str, bundled: tuple[str, ...]) -> Splits:
    """`<root>/<name>/{train,val}/<class>/`. Raises UserError, naming what is there and what comes bundled."""
    folder = _find(root, name, bundled)
    train, val = (_open_split(folder, split) for split in ("train", "val"))
    require_same_classes(name, train.classes, val.classes)
    notes = [*train.notes, *val.notes]
    if train.classes != val.classes:
        other = next(one for one in val.classes if one not in train.classes)
        how = f"in another form of Unicode than train, such as {other!a}"
        notes.append(f"{folder}/val writes names of classes {how}: each is taken for that of train")
    return Splits(train, labeled_as(val, train.classes), notes=notes)


def open_validation_folder(root: Path, name: str, bundled: tuple[str, ...]) -> ImageFolder:
    """`<root>/<name>/val/<class>/`, whatever else is there. Raises UserError as `open_folders`."""
    return _open_split(_find(root, name, bundled), "val")


def _find(root: Path, name: str, bundled: tuple[str, ...]) -> Path:
    folder = root / name
    if not is_folder(folder):
        there = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        found = f"{root} has {listed(there)}" if there else f"there are no folders in {root}"
        near = did_you_mean(name, [*there, *bundled])
        raise UserError(f"no folder {folder}; {found}; bundled: {', '.join(bundled)}{near}", key="dataset")
    return folder


def _open_split(folder: Path, split: str) -> ImageFolder:
    if not is_folder(folder / split):
        raise _no_split(folder, split)
    return ImageFolder(folder / split)


def _no_split(folder: Path, split: str) -> UserError:
    """With the folders that are there, and what to do about one whose name says the same: only `hf:` reads it."""
    there = [Path(path).name for path in _read_folder(folder, folders_in).paths]
    roles = (Role.TRAIN,) if split == "train" else (Role.VALIDATION, Role.TEST)
    alike = sorted((name for name in there if role_of(name) in roles), key=lambda name: roles.index(role_of(name)))
    found = f"; it has {listed((f'{name}/' for name in there), 5)}" if there else ""
    hint = (
        f"rename {alike[0]}/ to {split}/, or name it as '{HF}{folder}', where that name is read too" if alike else None
    )
    message = f"{folder} has no folder {split}/ with a folder for each class{found}"
    return UserError(message, key="dataset", hint=hint)
