"""From the bytes of a job file to what it says: keys and values, and everything that is wrong with them as JSON."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_trainer.config.json_syntax import described, find_slips, without
from accel_trainer.config.places import SCHEMA_KEY
from accel_trainer.config.problems import few_problems
from accel_trainer.core import files
from accel_trainer.core.errors import InvalidJob, Problem
from accel_trainer.core.text import listed

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_KEY = 200
# What 64 bits hold; beyond it torch and the floating point numbers give up.
MAX_INTEGER = 2**63 - 1
# JSON can have what no file can hold.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
NEWLINE = b"\n"


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most 256 KiB; a symbolic link is not followed. Raises InvalidJob."""
    try:
        return files.read_bytes(path, MAX_BYTES, follow_links=False)
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise InvalidJob(reason, where=path) from error


def parse_json(content: bytes, where: str | None) -> dict[str, Any]:
    """A JSON object, without duplicate keys, NaN or Infinity, and nothing that could not be written or printed again.

    Raises InvalidJob with that `where`, with a problem for each slip.
    """
    text = read_text(content, where)
    if text.problems or text.given is None:
        raise InvalidJob(*few_problems(text.problems))
    return text.given


@dataclass(frozen=True)
class JobText:
    """What a job file says. given: its keys and values, as they were meant; None where nobody can know. problems: slips
    of JSON, and values that no job may have. certain: the text without slips, if there are none but such as leave no
    doubt of what was meant."""

    given: dict[str, Any] | None
    problems: tuple[Problem, ...] = ()
    certain: str | None = None


def read_text(content: bytes, where: str | None) -> JobText:
    """What the bytes of a job file say, and everything that is wrong with them as JSON. Raises nothing."""
    try:
        text, problems = _decode(content, where)
    except InvalidJob as error:
        return JobText(None, error.details)
    try:
        given, more = _load(text, where)
        return JobText(given, (*problems, *more), None if more else text)
    except InvalidJob as error:
        return JobText(None, (*problems, *error.details))
    except ValueError as error:
        slips = find_slips(text)
        if not slips:
            return JobText(None, (*problems, Problem(str(error), where)))
    problems += [Problem(line, where, key) for line, key in described(text, slips)]
    if any(slip.is_of_structure for slip in slips):
        return JobText(None, tuple(problems))
    repaired = without(text, slips)
    try:
        given, more = _load(repaired, where)
    except (InvalidJob, ValueError):
        return JobText(None, tuple(problems))
    is_certain = all(slip.is_certain for slip in slips)
    return JobText(given, (*problems, *more), repaired if is_certain and not more else None)


def _decode(content: bytes, where: str | None) -> tuple[str, list[Problem]]:
    """The text of a file, and whether it is in another encoding than it should be. Raises InvalidJob."""
    encoding = json.detect_encoding(content)
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = f"line {content.count(NEWLINE, 0, error.start) + 1}, byte {error.start}"
        maybe = chr(content[error.start])
        message = f"is not UTF-8 text ({place}; in Latin-1 it would be {maybe!r})"
        raise InvalidJob(message, where=where, hint="save the file as UTF-8") from error
    if encoding.startswith("utf-8"):
        return text, []
    return text, [Problem(f"is {encoding[:6].upper()} text", where, hint="save the file as UTF-8")]


def _load(text: str, where: str | None) -> tuple[dict[str, Any], list[Problem]]:
    """The object in a text, and what is wrong with its keys and values. Raises InvalidJob for what is no object of a
    reasonable size, and ValueError for what is not JSON."""
    problems: list[Problem] = []
    duplicates: list[tuple[dict[str, Any], list[str]]] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(pairs)
        if len(kept) == len(pairs) and "".join(kept).isprintable() and all(len(key) <= MAX_KEY for key in kept):
            return kept
        keys = [key for key, _ in pairs]
        kept = {key: value for key, value in pairs if key.isprintable() and len(key) <= MAX_KEY}
        if odd := [key for key in keys if not key.isprintable()]:
            problems.append(Problem("a key may not contain control characters", where, repr(odd[0][:MAX_KEY])))
        if long := [key for key in keys if len(key) > MAX_KEY]:
            message = f"a key may have {MAX_KEY} characters, not {len(long[0]):,}"
            problems.append(Problem(message, where, f"{long[0][:40]}..."))
        if len(set(keys)) < len(keys):
            twice = sorted(key for key, count in Counter(keys).items() if count > 1)
            duplicates.append((kept, twice))
        return kept

    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is not a number in JSON")

    try:
        given = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise InvalidJob("is nested too deeply", where=where) from error
    if not isinstance(given, dict):
        raise InvalidJob(f"a job is a JSON object, {{...}}, not a {type(given).__name__}", where=where)
    for place, twice in duplicates:
        above = next((path for path, part in _objects(given) if part is place), "")
        names = listed(f"{above}{key}" for key in twice)
        problems.append(Problem(f"given twice{_lines_of(twice, text)}", where, names, hint="keep one"))
    given.pop(SCHEMA_KEY, None)  # for editors
    for key, value in list(given.items()):
        if (message := _unusable(value)) is not None:
            problems.append(Problem(message, where, key))
            del given[key]
    return given, problems


def _objects(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a value, however deep, with what stands before the names of its keys, as `optimizer_args.`."""
    left = [("", value)]
    while left:
        path, part = left.pop()
        match part:
            case dict():
                yield path, part
                left += [(f"{path}{key}.", inner) for key, inner in part.items()]
            case list():
                left += [(path, inner) for inner in part]


def _lines_of(keys: list[str], text: str) -> str:
    """', in lines 2 and 5', where one key is given twice."""
    places = [
        match.start() for match in re.finditer(re.escape(json.dumps(keys[0], ensure_ascii=False)) + r"\s*:", text)
    ]
    lines = [text.count("\n", 0, place) + 1 for place in places]
    return f", in lines {lines[0]} and {lines[1]}" if len(keys) == 1 and len(set(lines)) == len(places) == 2 else ""


def _unusable(value: Any) -> str | None:
    """Why a value cannot be written or printed again, or computed with; None for one that can."""
    if type(value) is bool or (type(value) is str and value.isprintable()):  # which half a character is not
        return None
    for depth, part in _parts(value):
        if depth > MAX_DEPTH:
            return "is nested too deeply"
        if _is_too_large(part):
            return "has a number that is too large"
        if isinstance(part, str) and LONE_SURROGATE.search(part):
            return "has half a character, such as \\ud800 without its other half"
    return None


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
