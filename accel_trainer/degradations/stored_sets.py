"""Published sets of degraded images, read from disk: a condition for each folder that has class folders in it.

`<corruption>/<1..5>/<class>/*` of ImageNet-C and Tiny ImageNet-C, `<form>/<visibility>/<class>/*` of occluded images,
and any other tree; or CIFAR-C's arrays, `<corruption>.npy` with `labels.npy`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.core.outage import is_folder, persistently
from accel_trainer.core.text import listed
from accel_trainer.data.dataset import ImageDataset, LabelArray, normal_form
from accel_trainer.data.listing import Listed
from accel_trainer.data.open import require_classes, with_classes
from accel_trainer.data.sources.array_images import ArrayFile, ArrayImages
from accel_trainer.data.sources.folders import IMAGE_SUFFIXES, ImageFolder
from accel_trainer.data.sources.walk import folders_in
from accel_trainer.degradations.stored_names import columns_of

LABELS, ARRAY = "labels.npy", ".npy"
MAX_LABELS_BYTES = 2**26
SEVERITIES = 5
MAX_DEPTH = 8


@dataclass(frozen=True)
class StoredCondition:
    """The images of one condition.

    columns: {"degradation": "imagenet-c/fog", "level": "3"}, as of a condition that is made here. images: labeled as
    the classes that were asked for.
    """

    columns: Mapping[str, str]
    images: ImageDataset

    @property
    def name(self) -> str:
        """Such as imagenet-c/fog/3."""
        return "/".join(part for part in self.columns.values() if part)

    @cached_property
    def image_ids(self) -> Sequence[str]:
        """The path of each image below the condition, the same in all conditions that show it: `<class>/<image>`."""
        return image_ids(self.images)


def image_ids(images: ImageDataset) -> list[str]:
    """What images are called, wherever they are: `<class>/<image>`, or a number for a name."""
    everything = np.arange(len(images.labels))
    names = images.names(everything) if isinstance(images, Listed) else list(map(str, everything.tolist()))
    return [f"{images.classes[label]}/{name}" for label, name in zip(images.labels.tolist(), names, strict=True)]


def open_stored(
    folder: Path, classes: Sequence[str] | None = None, *, needs_all: bool = False
) -> list[StoredCondition]:
    """All conditions of a set on disk, in the order of their paths, levels by number.

    classes: those of a run, which images are labeled as, by name; None: the set's own. needs_all: refuse a set that
    has not all of them. Raises UserError for a folder that is no such set, for classes that are not among `classes`,
    and where conditions have other classes or other numbers of images than the first.
    """
    folder = expand_home(folder)
    if not is_folder(folder):
        raise UserError("no such folder", where=folder)
    opened = _open_arrays(folder, classes) if (folder / LABELS).exists() else _open_folders(folder, classes)
    found = [StoredCondition(columns, _labeled(images, classes, where, needs_all)) for columns, images, where in opened]
    _require_alike(folder, found)
    return found


_Opened = tuple[Mapping[str, str], ImageDataset, Path]


def _labeled(source: ImageDataset, classes: Sequence[str] | None, where: Path, needs_all: bool) -> ImageDataset:
    if classes is None:
        return source
    if needs_all:
        require_classes(source, classes, str(where))
    return with_classes(source, classes, str(where))


def _require_alike(folder: Path, conditions: Sequence[StoredCondition]) -> None:
    """Raises UserError where figures of two conditions would be of other classes or other numbers of images."""
    first, *others = conditions
    counts = _counts(first)
    for other in others:
        if (found := _counts(other)) != counts:
            differing = [name for name in dict.fromkeys([*counts, *found]) if counts.get(name) != found.get(name)]
            named = listed((f"{name} {counts.get(name, 0)} and {found.get(name, 0)}" for name in differing), 3)
            raise UserError(
                f"{first.name} and {other.name} have other numbers of images: {named}",
                where=folder,
                hint="is one of them not unpacked whole?",
            )


def _counts(condition: StoredCondition) -> dict[str, int]:
    images = condition.images
    of_each = np.bincount(images.labels, minlength=len(images.classes)).tolist()
    return {name: count for name, count in zip(images.classes, of_each, strict=True) if count}


def _open_folders(folder: Path, classes: Sequence[str] | None) -> Iterator[_Opened]:
    wanted = None if classes is None else {normal_form(name) for name in classes}
    places = list(_conditions_below(folder, wanted, MAX_DEPTH))
    if not places:
        raise UserError(
            "has no folders of classes with images at any depth",
            where=folder,
            hint=f"lay it out as <degradation>/<level>/<class>/<image>, or as <corruption>.npy with {LABELS}",
        )
    for place in sorted(places, key=partial(_order, folder)):
        parts = place.relative_to(folder).parts or (folder.name,)
        yield columns_of(parts), ImageFolder(place), place


def _order(folder: Path, place: Path) -> list[tuple[float, str]]:
    """Levels by number, all else by name."""
    return [(float(part) if _is_number(part) else -1.0, part) for part in place.relative_to(folder).parts]


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def _conditions_below(folder: Path, classes: set[str] | None, depth: int) -> Iterator[Path]:
    """Folders that have class folders in them: of the names that are asked for, or with images in them."""
    below = persistently(partial(folders_in, folder), lambda: str(folder)).paths
    if any(_is_class(path, classes) or _has_images(path) for path in below):
        yield folder
    elif depth:
        for path in below:
            yield from _conditions_below(Path(path), classes, depth - 1)


def _is_class(folder: str, classes: set[str] | None) -> bool:
    """Of the name of one that is asked for; and no level that is called so, such as 3, with class folders in it."""
    if classes is None or normal_form(Path(folder).name) not in classes:
        return False
    below = persistently(partial(folders_in, Path(folder)), lambda: folder).paths
    return not any(normal_form(Path(path).name) in classes for path in below)


def _has_images(folder: str) -> bool:
    def look() -> bool:
        with os.scandir(folder) as entries:
            return any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries)

    return persistently(look, lambda: folder)


def _open_arrays(folder: Path, classes: Sequence[str] | None) -> Iterator[_Opened]:
    labels = _read_labels(folder / LABELS)
    paths = sorted(path for path in folder.glob(f"*{ARRAY}") if path.name != LABELS)
    if not paths:
        raise UserError(f"has {LABELS} and no other arrays", where=folder)
    names = _names_of_numbers(int(labels.max()) + 1, classes, folder)
    for path in paths:
        file = ArrayFile(path)
        count, rest = divmod(file.shape[0], SEVERITIES)
        if rest or len(labels) not in (count, file.shape[0]):
            raise UserError(
                f"has {file.shape[0]:,} images for {len(labels):,} labels; there are five severities after each other",
                where=path,
            )
        for severity in range(SEVERITIES):
            own = labels if len(labels) == count else labels[severity * count : (severity + 1) * count]
            images = ArrayImages(file, severity * count, own, names)
            yield columns_of((path.stem, str(severity + 1))), images, path


def _read_labels(path: Path) -> LabelArray:
    """int64 (n,), from 0. Raises UserError."""
    try:
        if path.stat().st_size > MAX_LABELS_BYTES:
            raise UserError("is too large for labels", where=path)
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read as labels: {error}", where=path) from error
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
        raise UserError(
            f"has no labels: {labels.dtype} of shape {labels.shape}; they are whole numbers from 0", where=path
        )
    numbers: LabelArray = labels.astype(np.int64)
    return numbers


def _names_of_numbers(count: int, classes: Sequence[str] | None, folder: Path) -> list[str]:
    """Names of the numbered classes: of CIFAR-10 and CIFAR-100, numbers are in the order of the names. Classes that
    are called by numbers are those numbers."""
    if classes is None:
        return [str(number) for number in range(count)]
    if all(name.isdecimal() for name in classes):
        return sorted(classes, key=int) if len(classes) == count else [str(number) for number in range(count)]
    if len(classes) != count:
        raise UserError(
            f"has {count} classes, by number, and the run has {len(classes)}: {listed(classes, 5)}", where=folder
        )
    return sorted(classes)
