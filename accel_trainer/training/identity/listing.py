"""The images of a split by name, and the file of a run folder that keeps the names to tell which have changed."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from accel_trainer.core.files import read_bytes
from accel_trainer.core.outage import persistently
from accel_trainer.data.listing import Labeled, Listed, MarkedOtherwise, Numbers
from accel_trainer.run.dataset_record import ClassRecord, SplitRecord, digest
from accel_trainer.run.folder import RunFolder

# Of ten million images.
MAX_LISTING = 2**31


@dataclass(frozen=True)
class SplitListing:
    """The images of a split by class: their names and, once those are known, marks of their contents."""

    classes: Sequence[str]
    names: Sequence[Sequence[str]]
    marks: Sequence[Numbers] | None = None

    @property
    def record(self) -> SplitRecord:
        """What of it is recorded."""
        marks: Sequence[Numbers | None] = [None] * len(self.classes) if self.marks is None else self.marks
        return SplitRecord(
            [
                ClassRecord(
                    name, len(names), digest(names), None if known is None else digest(map(str, known.tolist()))
                )
                for name, names, known in zip(self.classes, self.names, marks, strict=True)
            ]
        )

    @property
    def all_marks(self) -> Sequence[int]:
        """Those of all classes that are known."""
        return [mark for marks in self.marks or () for mark in marks.tolist()]

    def images(self, class_name: str) -> dict[str, int]:
        """{name: mark} of the images of a class."""
        label = self.classes.index(class_name)
        marks = [0] * len(self.names[label]) if self.marks is None else self.marks[label].tolist()
        return dict(zip(self.names[label], marks, strict=True))


def list_split(source: Labeled) -> SplitListing:
    """The names of the images, by class; numbers for a source that has none."""
    by_class = _indices_by_class(source)
    if isinstance(source, Listed):
        return SplitListing(list(source.classes), [source.names(indices) for indices in by_class])
    return SplitListing(list(source.classes), [list(map(str, range(len(indices)))) for indices in by_class])


def with_marks(
    listing: SplitListing, source: Labeled, is_canceled: Callable[[], bool], *, of_earlier_versions: bool = False
) -> SplitListing:
    """The same with marks of contents, which may take long. Raises Canceled."""
    by_class = _indices_by_class(source)
    every = np.concatenate(by_class)
    if of_earlier_versions and isinstance(source, MarkedOtherwise):
        marks = source.earlier_marks(every, is_canceled)
    else:
        marks = source.marks(every, is_canceled) if isinstance(source, Listed) else np.zeros(len(every), np.int64)
    return replace(listing, marks=_split(marks, list(map(len, by_class))))


def in_order_of_classes(source: Labeled) -> Numbers:
    """The indices of all images in the order of a listing."""
    return np.concatenate(_indices_by_class(source))


def _indices_by_class(source: Labeled) -> list[Numbers]:
    counts = np.bincount(source.labels, minlength=len(source.classes))
    return _split(np.argsort(source.labels, kind="stable"), counts.tolist())


def _split(numbers: Numbers, counts: Sequence[int]) -> list[Numbers]:
    return list(np.split(numbers, np.cumsum(counts)[:-1]))


# -- the file ---------------------------------------------------------------------------------------------------------


def write_listings(run: RunFolder, listings: Mapping[str, SplitListing]) -> None:
    """Write dataset_listing.npz. Raises OSError."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for split, listing in listings.items():
        arrays[f"{split}/classes"] = _as_bytes(listing.classes)
        arrays[f"{split}/counts"] = np.array([len(names) for names in listing.names], np.int64)
        arrays[f"{split}/names"] = _as_bytes([name for names in listing.names for name in names])
        arrays[f"{split}/marks"] = np.concatenate(list(listing.marks or ()) or [np.zeros(0, np.int64)])
    file = BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    run.write(run.dataset_listing, file.getvalue())


def read_listings(run: RunFolder) -> dict[str, SplitListing]:
    """What `write_listings` wrote, by split; nothing where that cannot be read."""
    path = run.dataset_listing
    try:
        content = persistently(lambda: read_bytes(path, MAX_LISTING), lambda: str(path), may_be_missing=True)
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            splits = [name.removesuffix("/classes") for name in arrays if name.endswith("/classes")]
            return {split: _listing(arrays, split) for split in splits}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return {}


def _listing(arrays: Mapping[str, npt.NDArray[np.int64]], split: str) -> SplitListing:
    """Raises ValueError for arrays that do not fit together."""
    counts = arrays[f"{split}/counts"].tolist()
    names, marks = _from_bytes(arrays[f"{split}/names"]), arrays[f"{split}/marks"]
    classes = _from_bytes(arrays[f"{split}/classes"])
    if not len(names) == len(marks) == sum(counts) or len(classes) != len(counts):
        raise ValueError("these are not the images of a split")
    ends = np.cumsum(counts).tolist()
    of_each = [names[end - count : end] for count, end in zip(counts, ends, strict=True)]
    return SplitListing(classes, of_each, _split(marks, counts))


def _as_bytes(names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Each ends with a zero byte, which no name of a file has."""
    return np.frombuffer("".join(f"{name}\0" for name in names).encode(errors="surrogateescape"), np.uint8)


def _from_bytes(content: npt.NDArray[np.generic]) -> list[str]:
    return content.tobytes().decode(errors="surrogateescape").split("\0")[:-1]
