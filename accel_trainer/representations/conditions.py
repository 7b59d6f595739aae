"""Which images are one condition, and which of its repeats are of one partition."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, read_text
from accel_trainer.core.text import did_you_mean, listed

IMAGE, CONDITION, PARTITION = "image", "condition", "partition"
MAX_TABLE_BYTES = 256 * MEBIBYTE
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Conditions:
    """names: of the conditions, in their order; members: for each the indices of its images, ascending; partitions: for
    each partition the members of each condition, where repeats are told apart."""

    names: tuple[str, ...]
    members: tuple[Indices, ...]
    partitions: tuple[tuple[Indices, ...], ...] = ()

    @property
    def labels(self) -> NDArray[np.int64]:
        """The condition of each image that has one, and the image: (2, images)."""
        codes = np.repeat(np.arange(len(self.names)), [len(one) for one in self.members])
        return np.stack([codes, np.concatenate(self.members)])


def conditions_of(labels: Sequence[str], partitions: Sequence[str] | None = None) -> Conditions:
    """Of the condition of each image, and its partition; "" for images that are left out. Conditions are in the order
    in which they first come. Without partitions, the k-th image of a condition is of partition k, as far as all
    conditions have as many, then of the first again. Raises UserError where a partition has not all conditions."""
    codes, names = _codes(labels)
    members = tuple(np.flatnonzero(codes == code) for code in range(len(names)))
    if not names:
        raise UserError("there are no conditions")
    if partitions is None:
        most = min(map(len, members))
        return Conditions(names, members, tuple(tuple(one[k::most] for one in members) for k in range(most)))
    of_image, of_name = _codes(partitions)
    split = tuple(tuple(one[of_image[one] == code] for one in members) for code in range(len(of_name)))
    for partition, parts in zip(of_name, split, strict=True):
        if lacking := [name for name, part in zip(names, parts, strict=True) if not len(part)]:
            raise UserError(f"partition {partition!r} has no images of {listed(lacking)}")
    return Conditions(names, members, split)


def _codes(labels: Sequence[str]) -> tuple[Indices, tuple[str, ...]]:
    """-1 for ""."""
    places = {name: place for place, name in enumerate(dict.fromkeys(label for label in labels if label != ""))}
    return np.array([places.get(label, -1) for label in labels], np.int64), tuple(places)


def each_alone(names: Iterable[str], left_out: Iterable[str] = ()) -> Conditions:
    """Every image is a condition, called as it is."""
    without = set(left_out)
    kept = [(index, name) for index, name in enumerate(names) if name not in without]
    return Conditions(tuple(name for _, name in kept), tuple(np.array([index], np.int64) for index, _ in kept))


def by_folder(names: Sequence[str], left_out: Iterable[str] = ()) -> Conditions:
    """The images of a folder are a condition, called by its path. Raises UserError for images that are in none."""
    without, folders = set(left_out), [str(PurePosixPath(name).parent) for name in names]
    if "." in folders:
        raise UserError(
            f"{names[folders.index('.')]!r} is in no folder, which would be its class",
            option="by",
            hint="name a table of conditions",
        )
    return conditions_of(["" if name in without else one for name, one in zip(names, folders, strict=True)])


def by_table(names: Sequence[str], path: Path, left_out: Iterable[str] = ()) -> Conditions:
    """As a CSV has it, with the columns image, condition, and if there are repeats to be told apart, partition; in the
    order of its rows. Images that it does not name are left out. Raises UserError for others than there are,
    OSError."""
    table = _table(path)
    places = {name: place for place, name in enumerate(names)}
    if unknown := [row[IMAGE] for row in table if row[IMAGE] not in places]:
        near = did_you_mean(unknown[0], names)
        raise UserError(f"there are no features of {listed(unknown, 3)}{near}", where=path)
    if len({row[IMAGE] for row in table}) < len(table):
        raise UserError("names an image twice", where=path)
    without = set(left_out)
    rows = [row for row in table if row[IMAGE] not in without]
    has_partitions = bool(rows) and all(row.get(PARTITION) for row in rows)
    found = conditions_of(
        [row[CONDITION] for row in rows], [row[PARTITION] for row in rows] if has_partitions else None
    )
    images = np.array([places[row[IMAGE]] for row in rows], np.int64)
    split = tuple(tuple(np.sort(images[part]) for part in parts) for parts in found.partitions)
    return Conditions(found.names, tuple(np.sort(images[one]) for one in found.members), split)


def _table(path: Path) -> list[Mapping[str, str]]:
    reader = csv.DictReader(io.StringIO(read_text(path, MAX_TABLE_BYTES), newline=""))
    lacking = [name for name in (IMAGE, CONDITION) if name not in (reader.fieldnames or ())]
    if lacking:
        raise UserError(f"has no column {listed(lacking)}", where=path, hint="its first line names the columns")
    rows: list[Mapping[str, str]] = list(reader)
    if any(not row[CONDITION] or not row[IMAGE] for row in rows):
        raise UserError("has rows without an image or a condition", where=path)
    return rows
