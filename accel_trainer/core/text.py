"""Text for people: suggestions, lists, durations, values, and keys of nested objects."""

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean …?' for a misspelt word, or '' when nothing known is near it."""
    near = near_misses(word, known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def near_misses(word: str, known: Iterable[str]) -> list[str]:
    """The one or two known words that a misspelt one is near to, the nearest first; none, if nothing is."""
    by_lower_case = {name.lower(): name for name in known}
    return [by_lower_case[name] for name in difflib.get_close_matches(word.lower(), by_lower_case, n=2, cutoff=0.6)]


def listed(names: Iterable[str], at_most: int = 12) -> str:
    """'a, b, c' for a message; a long list ends in how many more there are."""
    names = [name if name.isprintable() else repr(name) for name in names]
    shown = ", ".join(names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"


def printable(text: str) -> str:
    """Text for a terminal: what could move its cursor or change its colours is written out, as \\x1b."""
    if text.isprintable():
        return text
    return "\n".join(line if line.isprintable() else _without_controls(line) for line in text.split("\n"))


def _without_controls(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


# What colors a text, and does nothing else to a terminal.
_COLORS = re.compile(r"\x1b\[[0-9;:]{0,40}m")


def printable_log(text: str) -> str:
    """Output of a program for a terminal: colors stay, and the carriage returns of progress bars."""
    if text.isprintable():
        return text
    parts = zip(_COLORS.split(text), [*_COLORS.findall(text), ""], strict=True)
    return "".join("\r".join(map(printable, between.split("\r"))) + color for between, color in parts)


def one_line(value: object) -> str:
    """A value as it may stand in a line for people: line breaks are written out as well, as \\n. Whoever has written a
    name or a reason cannot make a line of their own with it."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """What an exception of a library says, in one line."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}, "c": [2]} becomes {"a.b": 1, "c": [2]}; of an empty object nothing is left."""
    return dict(_flat(content, ""))


def _flat(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shortest_suffixes(keys: Iterable[str]) -> dict[str, str]:
    """For each key the fewest of its last words that distinguish it from the others: `lr` for `optimizer_args.lr`."""
    keys = list(dict.fromkeys(keys))
    counts = Counter(ending for key in keys for ending in _endings(key))
    return {key: next((ending for ending in _endings(key) if counts[ending] == 1), key) for key in keys}


def _endings(key: str) -> list[str]:
    """The shortest first, the key itself last."""
    words = key.split(".")
    return [".".join(words[start:]) for start in reversed(range(len(words)))]


def format_value(value: Any) -> str:
    """A value for a person: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def canonical(value: Any) -> str:
    """The same text for values that mean the same in a job file, such as 1 and 1.0, but not 1 and true."""
    return json.dumps(_with_whole_numbers(value), sort_keys=True)


def _with_whole_numbers(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_with_whole_numbers(part) for part in value]
        case dict():
            return {key: _with_whole_numbers(part) for key, part in value.items()}
        case _:
            return value


def duration(seconds: float) -> str:
    """'45s', '3m 05s', '2h 07m' or '3d 04h'; '-' for what is no time."""
    if not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def with_part(text: str, marks: tuple[str, str], part: str) -> str:
    """A page whose part between two marks, each on a line of its own, is replaced. Raises ValueError where one of the
    marks is not there just once."""
    begin, end = marks
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"a page has {begin!r}, and then {end!r}, once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"
