"""Paths in a job that no file system could have, or that lead elsewhere. Only homes are looked up."""

import os
from pathlib import Path, PurePath
from typing import Any

from accel_trainer.config.dataset_names import HF, place_of
from accel_trainer.config.derived import MARKS, JobParameters
from accel_trainer.config.marks import PathKind
from accel_trainer.core.errors import Problem

# Of a path and of each of its parts, on nearly all file systems.
MAX_PATH_BYTES, MAX_PART_BYTES = 4000, 255
# No file system refuses a path of so many characters.
PLAIN = 200

PATHS = {key: mark.path for key, mark in MARKS.items() if mark.path is not None}
_NAMES = {key: key.split(".") for key in PATHS}


def _has_home(path: str) -> bool:
    try:
        Path(path).expanduser()
    except RuntimeError:
        return False
    return True


def _num_bytes(path: str) -> int:
    return len(os.fsencode(path))


def _paths(key: str, job: JobParameters) -> list[str]:
    """Those of one parameter."""
    value: Any = job
    for name in _NAMES[key]:
        value = getattr(value, name, None)
    return value if isinstance(value, list) else [] if value is None else [value]


def _is_plain(given: str) -> bool:
    """Whether nothing can be wrong with a path, as with nearly all there are: known without taking it apart."""
    return (
        0 < len(given) <= PLAIN
        and given.isascii()
        and given.isprintable()
        and given[0] not in "/~"
        and (".." not in given and ":" not in given)
    )


def path_problems(key: str, job: JobParameters) -> list[Problem]:
    """What is wrong with the paths of one of PATHS in a job, as they are written."""
    paths = _paths(key, job)
    return [problem for given in paths if (problem := path_problem(key, given, PATHS[key])) is not None]


def path_problem(key: str, given: str, kind: PathKind) -> Problem | None:
    """What is wrong with one path that a parameter gives, as it is written."""
    if _is_plain(given.removeprefix("~/") if key == "data_root" else given):
        return None
    is_dataset = kind is PathKind.DATASET
    value = place_of(given) if is_dataset else given
    parts = PurePath(value).parts
    if not given:
        return Problem("may not be empty", key=key)
    if not value:
        return Problem(f"{HF!r} needs a hub id or a path behind it", key=key)
    if any(not character.isprintable() for character in value):
        return Problem(f"{given!r} may not contain control characters", key=key)
    if _num_bytes(value) > MAX_PATH_BYTES or any(_num_bytes(part) > MAX_PART_BYTES for part in parts):
        return Problem(f"{given[:40]!r}... is too long to be a path", key=key)
    if value.startswith("~") and not ((key == "data_root" and parts[:1] == ("~",)) or _has_home(value)):
        return Problem(f"{given!r}: there is no such user", key=key)
    if ".." in parts and kind is not PathKind.CONFIG:
        return Problem(f"{given!r} may not contain '..'", key=key)
    if is_dataset and value == given and PurePath(value).is_absolute():
        hint = f"name a folder below data_root and set data_root to {str(PurePath(value).parent)!r}"
        return Problem(f"{given!r} is an absolute path", key=key, hint=hint)
    return None
