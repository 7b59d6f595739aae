"""From where the relative paths of a queue's jobs count: the folder that the queue is in, wherever a verb is typed.

Runners on several machines, and whoever looks at the queue from another folder, mean the same run folders by that.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.machine_errors import PASSING

# Arguments that are no paths where nothing is there: names of jobs, or of the configs that come with the package.
FILES_OR_NAMES = frozenset({"job", "jobs", "base", "files", "runs", "config"})
_typed_in: ContextVar[Path | None] = ContextVar("typed_in", default=None)


def in_typed_folder(path: str) -> Path:
    """A path of the folder in which the verb was typed."""
    return (_typed_in.get() or Path()) / path


def home_elsewhere() -> Path | None:
    """The folder that the queue is in, where the verb was typed in another one."""
    return None if _typed_in.get() is None else Path.cwd()


@contextmanager
def at_home(arguments: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """In this context the working folder is the one that the queue is in; the arguments of a verb, as they are to be
    written there. Raises OSError, of the queue, where that folder is away."""
    here, queue = _here(), arguments.get("queue")
    home = _home(queue, here) if here is not None and isinstance(queue, Path) else None
    if here is None or home is None:
        yield arguments
        return
    moved = {name: _from(here, name, value) for name, value in arguments.items()}
    on_disk(lambda: os.chdir(home), home)
    typed_in = _typed_in.set(here)
    try:
        yield moved
    finally:
        _typed_in.reset(typed_in)
        with suppress(OSError):  # it was removed meanwhile
            os.chdir(here)


def _here() -> Path | None:
    """The working folder; None where it was removed."""
    with suppress(FileNotFoundError):
        return Path.cwd()
    return None


def _home(queue: Path, here: Path) -> Path | None:
    """The folder that a queue is in, where that is another one than `here`: of what cannot be entered, the verb says
    itself what it says of such a queue."""
    home = Path(os.path.abspath(queue)).parent  # noqa: PTH100 - links stay as they are
    try:
        is_other = on_disk(lambda: home.is_dir() and os.access(home, os.X_OK) and not home.samefile(here), home)
    except OSError as error:
        if error.errno in PASSING:
            raise OSError(error.errno, error.strerror, str(queue)) from error
        return None
    return home if is_other else None


def _from(here: Path, name: str, value: Any) -> Any:
    """An argument that means a file or folder of `here`, by its absolute path."""
    if isinstance(value, list):
        return [_from(here, name, one) for one in value]
    is_path = isinstance(value, Path)
    if name in FILES_OR_NAMES:
        looks_like_one = is_path or (isinstance(value, str) and ("/" in value or ".json" in value))
        is_path = looks_like_one and os.path.lexists(here / value)
    return type(value)(here / value) if is_path else value
