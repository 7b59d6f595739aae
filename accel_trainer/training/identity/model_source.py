"""The source of a model of the user's own, listed as a data set is: its modules of the packages that are allowed."""

import ast
import importlib.util
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from accel_trainer.core.allow_imports import may_import
from accel_trainer.data.listing import Numbers

MODEL = "model"
"""What dataset.json calls the source of a run's model."""


class ModelSource:
    """A class for each module that a model is made of, and in it its file. Which these are follows from what the files
    say, and not from what else this process has imported; what they import only when it is used may be left out."""

    def __init__(self, architecture: str) -> None:
        """architecture: the import path of a model that is imported, such as my_lab.models:Net."""
        found = sorted(_files(architecture.partition(":")[0]).items())
        self.classes = [name for name, _ in found]
        self.labels: Numbers = np.arange(len(found))
        self._names = [path.name for _, path in found]
        self.known_marks = [_checksum(path) for _, path in found]

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
        module = sys.modules.get(name)
        if name in found or module is None or not may_import(name) or getattr(module, "__file__", None) is None:
            continue
        found[name] = Path(str(module.__file__))
        left += [name.rpartition(".")[0], *_imported(module, found[name])]
    return found


def _imported(module: ModuleType, path: Path) -> Iterator[str]:
    """What may be a module of all that a file imports."""
    if path.suffix != ".py":  # compiled
        return
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(origin, names, level):
                package = importlib.util.resolve_name(f"{'.' * level}{origin or ''}", module.__package__)
                yield package
                yield from (f"{package}.{name.name}" for name in names)


def _checksum(path: Path) -> int:
    return zlib.crc32(path.read_bytes())
