"""From the bytes of a job file to a Job, or to one clear line for each mistake."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accel_trainer.config.file_names import why_no_job
from accel_trainer.config.job import Job
from accel_trainer.core import files
from accel_trainer.core.errors import InvalidJob
from accel_trainer.core.text import listed

MAX_BYTES = 256 * 1024
MAX_NAME_BYTES = 120
MAX_DEPTH = 20
MAX_KEY = 200
# What 64 bits hold; beyond it torch and the floating point numbers give up.
MAX_INTEGER = 2**63 - 1
# JSON can have what no file can hold.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def job_name(path: Path) -> str:
    """The name of a job, from its file's. Raises InvalidJob for one that could mislead a person or a file system."""
    name = path.name.removesuffix(".json")
    if (why := why_no_job(path.name)) is not None:
        raise InvalidJob(why, where=path)
    if not name or path.suffix != ".json":
        raise InvalidJob("a job file's name ends in .json", where=path)
    if any(not character.isprintable() for character in name) or ".." in name or "\\" in name:
        raise InvalidJob("a job's name may not contain control characters, '..' or '\\'", where=repr(str(path)))
    if name.startswith((".", "-")):
        raise InvalidJob(f"a job's name may not begin with {name[0]!r}", where=path)
    if (num_bytes := len(os.fsencode(name))) > MAX_NAME_BYTES:
        raise InvalidJob(f"a job's name may have {MAX_NAME_BYTES} bytes, not {num_bytes}", where=path)
    return name


def read_job(path: Path, name: str | None = None) -> Job:
    """The job in a file. Raises InvalidJob with a problem for each mistake."""
    name = job_name(path) if name is None else name
    return parse_job(read_bytes(path), name, where=str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most 256 KiB; a symbolic link is not followed. Raises InvalidJob."""
    try:
        return files.read_bytes(path, MAX_BYTES, follow_links=False)
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise InvalidJob(reason, where=path) from error


def parse_job(content: bytes, name: str, where: str) -> Job:
    """The job in the bytes of a job file. Raises InvalidJob with a problem for each mistake, with that `where`."""
    given = parse_json(content, where)
    if "name" in given:
        raise InvalidJob("a job has the name of its file", where=where, key="name", hint="remove this key")
    try:
        return Job(**given, name=name)
    except InvalidJob as error:
        raise error.at(where) from error.__cause__


def parse_json(content: bytes, where: str | None) -> dict[str, Any]:
    """A JSON object, without duplicate keys, NaN or Infinity, and nothing that could not be written or printed again.

    Raises InvalidJob with that `where`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if odd := [key for key in keys if not key.isprintable()]:
            raise InvalidJob("a key may not contain control characters", where=where, key=repr(odd[0][:MAX_KEY]))
        if long := [key for key in keys if len(key) > MAX_KEY]:
            message = f"a key may have {MAX_KEY} characters, not {len(long[0]):,}"
            raise InvalidJob(message, where=where, key=f"{long[0][:40]}...")
        if len(set(keys)) < len(keys):
            twice = sorted(key for key, count in Counter(keys).items() if count > 1)
            raise InvalidJob("given twice", where=where, key=listed(twice), hint="keep one")
        return dict(pairs)

    def no_constant(name: str) -> None:
        raise InvalidJob(f"{name} is not a number in JSON", where=where)

    try:
        text = content.decode("utf-8-sig")
        given = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except UnicodeDecodeError as error:
        raise InvalidJob(f"is not text (byte {error.start} is not UTF-8)", where=where) from error
    except json.JSONDecodeError as error:
        raise InvalidJob(f"line {error.lineno}, column {error.colno}: {error.msg}", where=where) from error
    except RecursionError as error:
        raise InvalidJob("is nested too deeply", where=where) from error
    except ValueError as error:  # such as an integer of 5,000 digits
        raise InvalidJob(str(error), where=where) from error
    if not isinstance(given, dict):
        raise InvalidJob(f"a job is a JSON object, {{...}}, not a {type(given).__name__}", where=where)
    for key, value in given.items():
        for depth, part in _parts(value):
            if depth > MAX_DEPTH:
                raise InvalidJob("is nested too deeply", where=where, key=key)
            if _is_too_large(part):
                raise InvalidJob("has a number that is too large", where=where, key=key)
            if isinstance(part, str) and LONE_SURROGATE.search(part):
                half = "has half a character, such as \\ud800 without its other half"
                raise InvalidJob(half, where=where, key=key)
    return given


def _parts(value: Any, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """(depth, part) of a value and all that is in it, down to one level below MAX_DEPTH."""
    yield depth, value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if depth <= MAX_DEPTH:
        for part in inner:
            yield from _parts(part, depth + 1)


def _is_too_large(value: Any) -> bool:
    """1e999 is JSON, and Python's infinity; its integers know no bound."""
    if isinstance(value, float):
        return math.isinf(value)
    return isinstance(value, int) and abs(value) > MAX_INTEGER
