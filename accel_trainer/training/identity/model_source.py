"""The source of a model of the user's own, listed as a data set is: its modules of the packages that are allowed."""

import ast
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path

import numpy as np

from accel_trainer.core.allow_imports import may_import
from accel_trainer.data.listing import Numbers

MODEL = "model"
"""What dataset.json calls the source of a run's model."""


class ModelSource:
    """A class for each module that a model is made of, and in it its file. Which these are follows from what the files
    say, also of what they import only when it is used, and not from what this process has imported."""

    def __init__(self, architecture: str) -> None:
        """architecture: the import path of a model that is imported, such as my_lab.models:Net."""
        found = sorted(_files(architecture.partition(":")[0]).items())
        self._paths = dict(found)
        self.classes = [name for name, _ in found]
        self.labels: Numbers = np.arange(len(found))
        self._names = [path.name for _, path in found]
        self.known_marks = [_checksum(path) for _, path in found]

    @property
    def files(self) -> dict[str, Path]:
        """Each file by where it is inside its package's folder: my_lab/models.py."""
        return {
            str(
                Path(*name.split("."), path.name)
                if path.stem == "__init__"
                else Path(*name.split(".")).with_suffix(path.suffix)
            ): path
            for name, path in self._paths.items()
        }

    def names(self, indices: Numbers) -> list[str]:
        """The names of the files, wherever their package lies."""
        return [self._names[index] for index in indices.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """CRC-32 of each file."""
        return np.array(self.known_marks, np.int64)[indices]


def _files(first: str) -> dict[str, Path]:
    """The files of a module and of all that it imports, directly or through others, from packages that are allowed."""
    found: dict[str, Path] = {}
    left = [first]
    while left:
        name = left.pop()
        if not name or name in found or not may_import(name) or (spec := _spec(name)) is None:
            continue
        if not spec.has_location or spec.origin is None or not Path(spec.origin).is_file():  # of a zip, or of no file
            continue
        found[name] = Path(spec.origin)
        left += [name.rpartition(".")[0], *_imported(spec.parent or "", found[name])]
    return found


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is; nothing is imported for that."""
    if (spec := getattr(sys.modules.get(name), "__spec__", None)) is not None:
        return spec if isinstance(spec, ModuleSpec) else None
    path = None
    if package := name.rpartition(".")[0]:
        if (parent := _spec(package)) is None or parent.submodule_search_locations is None:
            return None
        path = parent.submodule_search_locations
    specs = (finder.find_spec(name, path) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _imported(package: str, path: Path) -> Iterator[str]:
    """What may be a module of all that a file of this package imports."""
    if path.suffix != ".py":  # compiled
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # what nobody can import
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(origin, names, level):
                with suppress(ImportError):  # more dots than there are packages above
                    origin = resolve_name(f"{'.' * level}{origin or ''}", package)
                    yield origin
                    yield from (f"{origin}.{name.name}" for name in names)


def _checksum(path: Path) -> int:
    return zlib.crc32(path.read_bytes())
