"""From the bytes of a job file to a Job, or to one clear line for each mistake."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from accel_trainer.config.cross_checks import Contradiction
from accel_trainer.config.job import Job
from accel_trainer.config.marks import sections_in
from accel_trainer.core import files
from accel_trainer.core.errors import InvalidJob, Problem
from accel_trainer.core.text import did_you_mean, listed

MAX_BYTES = 256 * 1024
MAX_NAME_BYTES = 120
MAX_DEPTH = 20
MAX_KEY = 200
# Of what is reported of a file: mistakes, and characters of each.
MAX_PROBLEMS, MAX_LINE = 20, 1000
# What 64 bits hold; beyond it torch and the floating point numbers give up.
MAX_INTEGER = 2**63 - 1
# JSON can have what no file can hold.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Names that people look for at the top.
BELONGS_INTO = {
    **dict.fromkeys(("lr", "learning_rate", "momentum", "weight_decay", "nesterov", "betas"), "optimizer_args"),
    **dict.fromkeys(("step_size", "gamma", "T_max", "milestones", "patience"), "scheduler_args"),
    **dict.fromkeys(("label_smoothing", "temperature"), "criterion_args"),
}
# How pydantic names the alternatives of a union in the path of an error.
TYPE_NAMES = ("int", "float", "bool", "str", "list")


def job_name(path: Path) -> str:
    """The name of a job, from its file's. Raises InvalidJob for one that could mislead a person or a file system."""
    name = path.name.removesuffix(".json")
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
        return Job.model_validate({**given, "name": name})
    except ValidationError as error:
        raise InvalidJob(*_few(_problems(error))).at(where) from error


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


def _few(problems: Iterable[Problem]) -> list[Problem]:
    """Each once, and no more of them, and no longer ones, than a person reads."""
    some = [_shortened(problem) for problem in islice(problems, MAX_PROBLEMS + 1)]
    some[MAX_PROBLEMS:] = [Problem("and more mistakes")] if len(some) > MAX_PROBLEMS else []
    return list(dict.fromkeys(some))


def _shortened(problem: Problem) -> Problem:
    if (excess := len(str(problem)) - MAX_LINE) <= 0:
        return problem
    return replace(problem, message=f"{problem.message[: max(0, len(problem.message) - excess)]}...")


def _problems(error: ValidationError) -> Iterator[Problem]:
    """One for each parameter that is wrong, however many alternatives pydantic tried for it."""
    by_key: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False, include_context=True):
        by_key.setdefault(_key(detail), []).append(detail)
    for key in sorted(by_key, key=len, reverse=True):
        # The alternatives of a union fail at different depths: one mistake, one line.
        above = next((key[:i] for i, character in enumerate(key) if character == "." and key[:i] in by_key), None)
        if above is not None:
            by_key[above] += by_key.pop(key)
    for key, details in by_key.items():
        contradictions = [found for detail in details for found in _contradictions(detail)]
        yield from contradictions or [Problem(_sentence(details), key=key or None)]


def _key(detail: ErrorDetails) -> str:
    """`optimizer_args.lr` rather than pydantic's path, which names the alternatives of a union too."""
    first, rest = detail["loc"][:1], detail["loc"][1:]
    last: tuple[int | str, ...] = ()
    if detail["type"] == "extra_forbidden" and rest:  # the user's own key, whatever is in it
        rest, last = rest[:-1], rest[-1:]
    inner = [p for p in rest if isinstance(p, int) or (p.isidentifier() and p not in TYPE_NAMES)]
    return ".".join(str(part) for part in (*first, *inner, *last))


def _contradictions(detail: ErrorDetails) -> tuple[Problem, ...]:
    """What the cross-checks of a whole job have found."""
    match detail.get("ctx"):
        case {"error": Contradiction(problems=problems)}:
            return problems
        case _:
            return ()


def _sentence(details: list[ErrorDetails]) -> str:
    first = details[0]
    if first["type"] == "missing":
        return "missing; it has no default"
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        if len(first["loc"]) == 1 and (place := BELONGS_INTO.get(key)):
            return f"unknown key; it belongs into {place}"
        return f"unknown key{did_you_mean(key, _known_keys(first['loc'][:-1]))}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    expected = " or ".join(dict.fromkeys(_expectation(detail) for detail in details))
    value = json.dumps(first["input"], default=str)
    near = did_you_mean(first["input"], _literals(details)) if isinstance(first["input"], str) else ""
    return f"{value if len(value) < 80 else value[:77] + '...'} is not allowed: {expected}{near}"


def _expectation(detail: ErrorDetails) -> str:
    message = re.sub(r"a valid dictionary or instance of \w+", "an object {...}", detail["msg"])
    return (
        message.replace("Input should be", "it should be")
        .replace("a valid integer", "an integer")
        .replace("valid ", "")
    )


def _literals(details: Iterable[ErrorDetails]) -> list[str]:
    """The texts that the field of an error allows, where it allows only some."""
    locations = [detail["loc"] for detail in details if detail["type"] == "literal_error"]
    return list(dict.fromkeys(text for location in locations for text in _texts_in(_annotation_at(location))))


def _texts_in(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (value for value in get_args(annotation) if isinstance(value, str))
    else:
        for part in get_args(annotation):
            yield from _texts_in(part)


def _annotation_at(location: tuple[int | str, ...]) -> Any:
    """The type of the field at a place in a job; that of the innermost field, for a place inside its value."""
    annotation: Any = Job
    for part in location:
        fields = {name: field for section in sections_in(annotation) for name, field in section.model_fields.items()}
        if part in fields:
            annotation = fields[str(part)].annotation
    return annotation


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place in a job file: those of the job, or of one of its objects."""
    keys = [name for section in sections_in(_annotation_at(location)) for name in section.model_fields]
    return keys if location else [key for key in keys if key != "name"]
