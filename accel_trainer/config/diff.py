"""What may change between two attempts at one run, and the changes in the form of a job file."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from accel_trainer.config.derived import parameters

Changes = Mapping[str, tuple[Any, Any]]
"""{key: (then, now)}"""

# Without making it another run.
MAY_CHANGE = parameters(lambda mark: mark.may_change)
# Of these, what is not logged: it changes nothing of what is trained, measured or kept.
UNREPORTED = parameters(lambda mark: not mark.is_reported)


def single(changes: Changes) -> Iterator[tuple[str, Any, Any]]:
    """Each value that has changed, then and now, by where it is: `optimizer_args.lr`."""
    for key, (then, now) in changes.items():
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            inside = {name: (then.get(name), now.get(name)) for name in {**then, **now}}
            for name, *both in single({name: both for name, both in inside.items() if both[0] != both[1]}):
                yield f"{key}.{name}", both[0], both[1]
        else:
            yield key, then, now


def describe(changes: Changes) -> str:
    """`num_epochs 2 -> 4, optimizer_args.lr 0.05 -> 0.01`, as in a job file."""
    return ", ".join(f"{name} {_shown(then)} -> {_shown(now)}" for name, then, now in single(changes))


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False)
