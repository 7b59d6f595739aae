"""From the bytes of a job file to a Job, or to one clear line for each mistake."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from accel_trainer.config.job import Job
from accel_trainer.core import files
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed

MAX_BYTES = 256 * 1024
MAX_NAME_BYTES = 120
MAX_DEPTH = 20
MAX_KEY = 200
# Of what is said of a file: mistakes, and characters of each.
MAX_PROBLEMS, MAX_LINE = 20, 1000
# What 64 bits hold; beyond it torch and the floating point numbers give up.
MAX_INTEGER = 2**63 - 1
# JSON can say what no file can hold.
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
    """The name of a job, from its file's; a UserError when it could mislead a person or a file system."""
    name = path.name.removesuffix(".json")
    if not name or path.suffix != ".json":
        raise UserError(f"{path}: a job file's name ends in .json")
    if any(not character.isprintable() for character in name) or ".." in name or "\\" in name:
        raise UserError(f"{str(path)!r}: a job's name may not contain control characters, '..' or '\\'")
    if name.startswith((".", "-")):
        raise UserError(f"{path}: a job's name may not begin with {name[0]!r}")
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise UserError(f"{path}: a job's name may have {MAX_NAME_BYTES} bytes, not {len(os.fsencode(name))}")
    return name


def read_job(path: Path, name: str | None = None) -> Job:
    """The job in a file. Raises UserError with a line `file: key: what is wrong` for each mistake."""
    name = job_name(path) if name is None else name
    return parse_job(read_bytes(path), name, where=str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a regular, not oversized file; a symbolic link is not followed."""
    try:
        return files.read_bytes(path, MAX_BYTES, follow_links=False)
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise UserError(f"{path}: {reason}") from error


def parse_job(content: bytes, name: str, where: str) -> Job:
    """The job in the bytes of a job file; `where` begins every line of the error."""
    given = parse_json(content, where)
    if "name" in given:
        raise UserError(f"{where}: name: a job has the name of its file; remove this key")
    try:
        return Job.model_validate({**given, "name": name})
    except ValidationError as error:
        raise UserError(*(f"{where}: {problem}" for problem in _few(_problems(error)))) from error


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object, without duplicate keys, NaN or Infinity, and nothing that could not be written or said again."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if odd := [key for key in keys if not key.isprintable()]:
            raise UserError(f"{where}: {odd[0][:MAX_KEY]!r}: a key may not contain control characters")
        if long := [key for key in keys if len(key) > MAX_KEY]:
            raise UserError(f"{where}: {long[0][:40]}...: a key may have {MAX_KEY} characters, not {len(long[0]):,}")
        if len(set(keys)) < len(keys):
            twice = sorted(key for key, count in Counter(keys).items() if count > 1)
            raise UserError(f"{where}: {listed(twice)}: given twice; keep one")
        return dict(pairs)

    def no_constant(word: str) -> None:
        raise UserError(f"{where}: {word} is not a number in JSON")

    try:
        text = content.decode("utf-8-sig")
        given = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not text (byte {error.start} is not UTF-8)") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise UserError(f"{where}: is nested too deeply") from error
    except ValueError as error:  # such as an integer of 5,000 digits
        raise UserError(f"{where}: {error}") from error
    if not isinstance(given, dict):
        raise UserError(f"{where}: a job is a JSON object, {{...}}, not a {type(given).__name__}")
    for key, value in given.items():
        for depth, part in _parts(value):
            if depth > MAX_DEPTH:
                raise UserError(f"{where}: {key}: is nested too deeply")
            if _is_too_large(part):
                raise UserError(f"{where}: {key}: has a number that is too large")
            if isinstance(part, str) and LONE_SURROGATE.search(part):
                raise UserError(f"{where}: {key}: has half a character, such as \\ud800 without its other half")
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


def _few(problems: Iterable[str]) -> list[str]:
    """Each once, and no more of them, and no longer ones, than a person reads."""
    some = [p if len(p) <= MAX_LINE else f"{p[:MAX_LINE]}..." for p in islice(problems, MAX_PROBLEMS + 1)]
    some[MAX_PROBLEMS:] = ["and more mistakes"] if len(some) > MAX_PROBLEMS else []
    return list(dict.fromkeys(some))


def _problems(error: ValidationError) -> Iterator[str]:
    """One line for each parameter that is wrong, however many alternatives pydantic tried for it."""
    by_key: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False, include_context=True):
        by_key.setdefault(_key(detail), []).append(detail)
    for key in sorted(by_key, key=len, reverse=True):
        # The alternatives of a union fail at different depths: one mistake, one line.
        above = next((key[:i] for i, character in enumerate(key) if character == "." and key[:i] in by_key), None)
        if above is not None:
            by_key[above] += by_key.pop(key)
    for key, details in by_key.items():
        if key:
            yield f"{key}: {_sentence(details)}"
        else:  # cross-checks: they name their keys themselves
            yield from (line for d in details for line in _stripped(d["msg"]).split("\n"))


def _key(detail: ErrorDetails) -> str:
    """`optimizer_args.lr` rather than pydantic's path, which names the alternatives of a union too."""
    first, rest = detail["loc"][:1], detail["loc"][1:]
    last: tuple[int | str, ...] = ()
    if detail["type"] == "extra_forbidden" and rest:  # the user's own word, whatever is in it
        rest, last = rest[:-1], rest[-1:]
    inner = [p for p in rest if isinstance(p, int) or (p.isidentifier() and p not in TYPE_NAMES)]
    return ".".join(str(part) for part in (*first, *inner, *last))


def _stripped(message: str) -> str:
    return message.removeprefix("Value error, ")


def _sentence(details: list[ErrorDetails]) -> str:
    first = details[0]
    if first["type"] == "missing":
        return "missing; it has no default"
    if first["type"] == "extra_forbidden":
        word = str(first["loc"][-1])
        if len(first["loc"]) == 1 and (place := BELONGS_INTO.get(word)):
            return f"unknown key; it belongs into {place}"
        return f"unknown key{did_you_mean(word, _known_keys(first['loc'][:-1]))}"
    if first["type"] == "value_error":
        return _stripped(first["msg"])
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
    """The words that a Literal allows, from pydantic's "'a', 'b' or 'c'"."""
    expected = [str(d["ctx"]["expected"]) for d in details if d["type"] == "literal_error"]
    return [word for text in expected for word in text.split("'")[1::2]]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place in a job file: those of the job, or of one of its objects."""
    if not location:
        return [key for key in Job.model_fields if key != "name"]
    schema = Job.model_json_schema()
    definition = str(schema["properties"].get(location[0], ""))
    return [
        key for name, part in schema["$defs"].items() if f"'#/$defs/{name}'" in definition for key in part["properties"]
    ]
