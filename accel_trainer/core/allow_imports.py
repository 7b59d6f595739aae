"""What a job file may have imported: only packages that the user allows. A job file alone runs no code."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
