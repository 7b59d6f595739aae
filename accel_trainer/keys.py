"""Values inside nested objects by where they are: `optimizer_args.lr`."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}, "c": [2]} becomes {"a.b": 1, "c": [2]}; of an empty object nothing is left."""
    return dict(_flat(content, ""))


def _flat(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def short(keys: Iterable[str]) -> dict[str, str]:
    """For each key the fewest of its last words that tell it from the others: `lr` for `optimizer_args.lr`."""
    keys = list(dict.fromkeys(keys))
    counts = Counter(ending for key in keys for ending in _endings(key))
    return {key: next((ending for ending in _endings(key) if counts[ending] == 1), key) for key in keys}


def _endings(key: str) -> list[str]:
    """The shortest first, the key itself last."""
    words = key.split(".")
    return [".".join(words[start:]) for start in reversed(range(len(words)))]


def shown(value: Any) -> str:
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
