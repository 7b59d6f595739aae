"""What a job file may have imported: only packages that the user allows. A job file alone runs no code."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

from accel_trainer.core.errors import UserError

# Packages, separated by commas. The processes that check and train jobs inherit it.
ALLOW_VARIABLE = "ACCEL_TRAIN_ALLOW_IMPORTS"


def allow_imports(packages: str) -> None:
    """Allow more packages, named with commas between them, here and in the processes that this one starts.

    Raises UserError for what is not the name of a package.
    """
    names = [
        *_names(os.environ.get(ALLOW_VARIABLE, ""), where=ALLOW_VARIABLE),
        *_names(packages, option="allow_imports"),
    ]
    if names:
        os.environ[ALLOW_VARIABLE] = ",".join(dict.fromkeys(names))


@contextmanager
def imports_allowed(packages: str | Iterable[str]) -> Iterator[None]:
    """Allow more packages while the body runs: their names, or one text with commas between them.

    Raises UserError as `allow_imports`.
    """
    before = os.environ.get(ALLOW_VARIABLE)
    try:
        allow_imports(packages if isinstance(packages, str) else ",".join(packages))
        yield
    finally:
        if before is None:
            os.environ.pop(ALLOW_VARIABLE, None)
        else:
            os.environ[ALLOW_VARIABLE] = before


def may_import(module: str) -> bool:
    """Whether a module is one of those that are allowed, or below one. Raises UserError as `allow_imports`."""
    allowed = _names(os.environ.get(ALLOW_VARIABLE, ""), where=ALLOW_VARIABLE)
    return any(f"{module}.".startswith(f"{name}.") for name in allowed)


def refuse_import(module: str) -> None:
    """Raises UserError for a module that is not allowed, with what allows its package."""
    if not may_import(module):
        package = module.partition(".")[0]
        hint = f"allow it with `allow_imports` {package} or {ALLOW_VARIABLE}={package}"
        raise UserError(f"importing {package!r} is not allowed", key="architecture", hint=hint)


def _names(text: str, *, where: str | None = None, option: str | None = None) -> list[str]:
    names = [word.strip() for word in text.split(",") if word.strip()]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            hint = "give names such as my_lab,other.models"
            raise UserError(f"{name!r} is not the name of a package", where=where, option=option, hint=hint)
    return names


@contextmanager
def current_folder_searched() -> Iterator[None]:
    """Modules are also looked for in the current folder while the body runs, where Python has found none: the packages
    that are allowed, and for their own code whatever is there."""
    finder = _InFolder(str(Path.cwd()))
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have removed it
            sys.meta_path.remove(finder)


class _InFolder(MetaPathFinder):
    """Finds modules of a folder, for those that may have them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._found: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module is, that is in no package."""
        if path is not None or not (self._is_allowed(fullname) or self._is_asked_by_allowed()):
            return None
        if (spec := PathFinder.find_spec(fullname, [self._folder])) is not None:
            self._found.add(fullname)
        return spec

    @staticmethod
    def _is_allowed(package: str) -> bool:
        names = _names(os.environ.get(ALLOW_VARIABLE, ""), where=ALLOW_VARIABLE)
        return any(name.partition(".")[0] == package for name in names)

    def _is_asked_by_allowed(self) -> bool:
        """Whether the import statement is in a package of the user's."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        package = "" if frame is None else str(frame.f_globals.get("__name__")).partition(".")[0]
        return package in self._found or self._is_allowed(package)
