"""A job file that says what differs from another one, its base: `"base": "other.json"`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accel_trainer.config.job_text import read_bytes, read_text
from accel_trainer.config.places import BASE_KEY
from accel_trainer.core.errors import InvalidJob, UserError
from accel_trainer.core.files import expand_path


def standing_alone(path: Path) -> bytes:
    """The content of a job file; of one that names a base, that of a file which says the same without.

    Raises InvalidJob with a problem for each thing that is wrong with the base, or, beside a base, with the JSON of the
    file itself.
    """
    content = read_bytes(path)
    text = read_text(content, str(path))
    if text.given is None or BASE_KEY not in text.given:
        return content
    own = dict(text.given)
    named, problems = own.pop(BASE_KEY), [*text.problems]
    beneath: Mapping[str, Any] = {}
    try:
        beneath = {} if named is None else _said_by(_base_file(path, named), path)
    except InvalidJob as error:
        problems += error.details
    if problems:
        raise InvalidJob(*problems)
    return f"{json.dumps(merged(beneath, own), indent=2, ensure_ascii=False)}\n".encode()


def merged(beneath: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What a base and a job file say together: of what both say, the job file. An object is merged key by key, anything
    else is replaced as a whole; null takes away what the base says."""
    together = {**beneath, **own}
    for key, value in own.items():
        below = beneath.get(key)
        if value is None:
            del together[key]
        elif isinstance(below, Mapping) and isinstance(value, Mapping):
            together[key] = merged(below, value)
    return together


def base_file(path: Path) -> Path | None:
    """The base that a job file names; None where it names none, or nothing that can be one."""
    try:
        named = (read_text(read_bytes(path), str(path)).given or {}).get(BASE_KEY)
        return None if named is None else _base_file(path, named)
    except InvalidJob:
        return None


def _base_file(path: Path, named: object) -> Path:
    """Raises InvalidJob."""
    if not isinstance(named, str) or not named:
        raise InvalidJob('name one job file, such as "other.json"', where=path, key=BASE_KEY)
    try:
        return path.parent / expand_path(named)
    except UserError as error:
        raise InvalidJob(*error.details).under(BASE_KEY).at(path) from error


def _said_by(base: Path, path: Path) -> Mapping[str, Any]:
    """Raises InvalidJob, with what is wrong in the base as of that file, and what is wrong with it as one."""
    try:
        content = read_bytes(base)
    except InvalidJob as error:
        raise InvalidJob(f"{base} {error.details[0].message}", where=path, key=BASE_KEY) from error
    text = read_text(content, str(base))
    if text.given is None or text.problems:
        raise InvalidJob(*text.problems)
    if BASE_KEY in text.given:
        hint = "a base is a job file that names none"
        raise InvalidJob(f"{base} has a base itself", where=path, key=BASE_KEY, hint=hint)
    return text.given
