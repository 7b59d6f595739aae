"""dataset.json: the data set that a run began with, with what else it reads, and in which way another one differs."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import persistently
from accel_trainer.core.record_store import RecordStore
from accel_trainer.core.text import listed
from accel_trainer.run.folder import RunFolder

VERSION = 1
# The classes of 100,000, in several splits.
MAX_RECORD = 2**28


@dataclass(frozen=True)
class ClassRecord:
    """One class of a split: how many images it has, and digests of their names and of the marks of their contents, such
    as the sizes of files. None: not known."""

    name: str
    images: int | None = None
    names: str | None = None
    contents: str | None = None

    def is_like(self, other: "ClassRecord") -> bool:
        """Whether the images may be the same, as far as it is known."""
        both = ((self.images, other.images), (self.names, other.names), (self.contents, other.contents))
        return all(one is None or two is None or one == two for one, two in both)


@dataclass(frozen=True)
class SplitRecord:
    """The classes of a split, in the order of their labels."""

    classes: list[ClassRecord]

    @property
    def digest_of_names(self) -> str:
        """Without the contents."""
        return digest(f"{one.name} {one.images} {one.names}" for one in self.classes)

    @property
    def is_complete(self) -> bool:
        """Whether the contents of all images are known."""
        return all(one.contents is not None for one in self.classes)


@dataclass(frozen=True)
class DataSetRecord:
    """What a run is trained and validated on, by split. dataset: as the job names it.

    What else it reads is listed as further splits: `occluders`, a class for each level; `spectrum`; `starting_weights`.
    """

    dataset: str
    splits: dict[str, SplitRecord] = field(default_factory=dict)
    version: int = VERSION

    @property
    def summary(self) -> str:
        """How many images there are, and a digest: for a record of changes."""
        counts = [
            f"{sum(one.images or 0 for one in about.classes)} {split}" for split, about in sorted(self.splits.items())
        ]
        names = digest(
            f"{split} {one.name} {one.images} {one.names}"
            for split, about in sorted(self.splits.items())
            for one in about.classes
        )
        contents = digest(str(one.contents) for _, about in sorted(self.splits.items()) for one in about.classes)
        return f"{self.dataset}: {', '.join(counts)}, {digest([names, contents])}"

    def with_splits(self, splits: Mapping[str, SplitRecord]) -> "DataSetRecord":
        """The same with further splits, or with more about them."""
        return replace(self, splits={**self.splits, **splits})


def digest(parts: Iterable[str]) -> str:
    """BLAKE2b of 8 bytes of some texts, as hexadecimal digits."""
    content = "\0".join(parts).encode(errors="surrogateescape")
    return hashlib.blake2b(content, digest_size=8, person=b"accel-train").hexdigest()


def damaged_record(path: Path) -> UserError:
    """Of a file that says what the data set was, and cannot be read."""
    return UserError(
        "is damaged, so it is not known whether the data set is still that of the run",
        where=path,
        hint="delete it to go on with what is there; it is then made anew",
    )


def _refuse(path: Path) -> None:
    raise damaged_record(path)


_RECORDS = RecordStore(DataSetRecord, damaged=_refuse, max_bytes=MAX_RECORD)


def read_dataset_record(run: RunFolder) -> DataSetRecord | None:
    """dataset.json; None for a run that was begun before there was one. Raises UserError for a damaged file."""
    record = persistently(lambda: _RECORDS.read(run.dataset), lambda: str(run.dataset))
    if record is not None and record.version != VERSION:
        raise UserError(f"is of version {record.version}, this is {VERSION}", where=run.dataset)
    return record


def write_dataset_record(run: RunFolder, record: DataSetRecord) -> None:
    """Write dataset.json. Raises OSError."""
    run.write(run.dataset, _RECORDS.encode(record))


# -- differences ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassChanges:
    """How the classes of a split have changed. renamed: those whose images are the same, {then: now}."""

    renamed: Mapping[str, str]
    added: Sequence[str]
    removed: Sequence[str]
    is_reordered: bool

    def lines(self, what_they_are: str = "class") -> list[str]:
        """In words."""
        lines = []
        if self.renamed:
            pairs = listed((f"{then} -> {now}" for then, now in self.renamed.items()), 3)
            lines.append(f"{_counted(len(self.renamed), what_they_are)} renamed ({pairs})")
        for names, what in ((self.added, "new"), (self.removed, "gone")):
            if names:
                lines.append(f"{_counted(len(names), what_they_are)} {what} ({listed(names, 3)})")
        return lines or [f"the {_plural(what_they_are)} are in another order"] * self.is_reordered


def class_changes(then: SplitRecord, now: SplitRecord) -> ClassChanges:
    """How the classes of a split have changed, in name and order."""
    before, after = ({one.name: one for one in split.classes} for split in (then, now))
    removed = [one for name, one in before.items() if name not in after]
    added = [one for name, one in after.items() if name not in before]
    renamed: dict[str, str] = {}
    for old in removed:
        same = [new for new in added if new.names is not None and old.names == new.names and old.is_like(new)]
        if same and old.images:
            renamed[old.name] = same[0].name
            added.remove(same[0])
    return ClassChanges(
        renamed=renamed,
        added=[one.name for one in added],
        removed=[one.name for one in removed if one.name not in renamed],
        is_reordered=list(before) != list(after),
    )


def changed_classes(then: SplitRecord, now: SplitRecord) -> list[str]:
    """The classes by the same name whose images are others."""
    before = {one.name: one for one in then.classes}
    return [one.name for one in now.classes if one.name in before and not before[one.name].is_like(one)]


def _counted(number: int, what: str) -> str:
    return f"{number} {what if number == 1 else _plural(what)}"


def _plural(what: str) -> str:
    return f"{what}es" if what.endswith("s") else f"{what}s"


@dataclass(frozen=True)
class ImageChanges:
    """How the images of some classes have changed, by names such as `cat/1.png`."""

    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    replaced: Sequence[str] = ()

    def lines(self, what_they_are: str = "image") -> list[str]:
        """In words."""
        kinds = ((self.removed, "gone"), (self.added, "new"), (self.replaced, "changed"))
        return [f"{_counted(len(names), what_they_are)} {what} ({listed(names, 3)})" for names, what in kinds if names]


def image_changes(then: Mapping[str, int], now: Mapping[str, int], class_name: str) -> ImageChanges:
    """{name of an image: mark of its content}, then and now."""
    return ImageChanges(
        added=[f"{class_name}/{name}" for name in now if name not in then],
        removed=[f"{class_name}/{name}" for name in then if name not in now],
        replaced=[f"{class_name}/{name}" for name, mark in now.items() if name in then and then[name] != mark],
    )
