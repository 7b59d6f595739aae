"""No image of a data set of folders has two labels: links may lead from one class to another."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.data.sources.walk import Found, Identity, identity_of


class OneLabel:
    """What was found below the classes of a split, one after the other."""

    def __init__(self, split: Path) -> None:
        self._split = str(split / "_")[:-1]
        self._folders: dict[Identity, str] = {}
        self._links: list[str] = []
        self._doubled: list[str] = []
        self._has_files = False

    def add(self, found: Found) -> None:
        """Compare what is below a class with those before."""
        for identity, folder in sorted(found.folders.items(), key=lambda item: item[1]):
            if (first := self._folders.setdefault(identity, folder)) != folder:
                self._doubled.append(f"{self._name(folder)} is {self._name(first)}")
        self._links += found.links
        self._has_files |= found.has_files

    def refuse_two(self) -> None:
        """Raises UserError where files of one class are those of another, too; and OSError."""
        if doubled := [*self._doubled, *self._doubled_files()]:
            raise UserError(
                f"{self._split[:-1]} has images that count under two classes: {listed(doubled, 3)}",
                key="dataset",
                hint="remove the links, so that each image has one class",
            )

    def _doubled_files(self) -> Iterator[str]:
        """Links to files below another class. Two links to one file elsewhere are two files."""
        if not self._has_files:
            return  # all of them are elsewhere
        identity = cache(lambda folder: identity_of(folder.stat()))
        for link in self._links:
            target = Path(link).parent / Path(link).readlink()
            owner = self._folders.get(identity(target.parent))
            if owner is not None and self._class_of(owner) != self._class_of(link):
                yield f"{self._name(link)} is {self._name(owner)}/{target.name}"

    def _class_of(self, path: str) -> str:
        return self._name(path).partition("/")[0]

    def _name(self, path: str) -> str:
        return path.removeprefix(self._split)
