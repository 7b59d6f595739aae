"""What may change between two attempts at one run, and the changes in the form of a job file."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from accel_trainer.config.derived import keys, parameters

Changes = Mapping[str, tuple[Any, Any]]
"""{key: (then, now)}"""

# Without making it another run.
MAY_CHANGE = parameters(lambda mark: mark.may_change)
# Paths in nested objects where the same may lie: what is there is compared with what the run has read.
MAY_MOVE = keys(lambda mark: mark.may_move)
# Of these, what is not logged: it changes nothing of what is trained, measured or kept.
UNREPORTED = parameters(lambda mark: not mark.is_reported)


def is_harmless(key: str) -> bool:
    """Whether a change of this key makes no other run, as far as the job tells."""
    return key in MAY_CHANGE or key in MAY_MOVE


def moves_apart(changes: Changes) -> Changes:
    """The same, with a path alone in place of the object that it is in, where nothing else of that has changed."""
    found: dict[str, tuple[Any, Any]] = {}
    for key, both in changes.items():
        inside = {name: (then, now) for name, then, now in single({key: both})}
        has_moved = all(name in MAY_MOVE and None not in paths for name, paths in inside.items())
        found |= inside if has_moved else {key: both}
    return found


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


def values(changes: Changes) -> str:
    """`num_epochs 4, optimizer_args.lr 0.01`: what is so now, without what is absent now."""
    return ", ".join(f"{name} {_shown(now)}" for name, _, now in single(changes) if now is not None)


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False)
