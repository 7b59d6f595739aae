"""Packages that jobs of a queue may import from, as this user has said once and for all.

They are kept in this user's own folder, not in the queue's: who may put jobs into a shared queue could else allow their
code to run as everybody who trains it.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from accel_trainer.core.allow_imports import allow_imports
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home, expand_home_if_any
from accel_trainer.core.record_store import RecordStore

FILE = "accel-train/allowed_imports.json"


@dataclass(frozen=True)
class _Allowed:
    """queues: of each, by its whole path without links, the packages."""

    queues: dict[str, list[str]] = field(default_factory=dict)


def allowed_for(queue: Path) -> list[str]:
    """The packages of a queue. A file that is damaged, or another user's, allows nothing."""
    path = expand_home_if_any(_home()) / FILE
    try:
        is_own = path.stat().st_uid == os.getuid()
    except OSError:
        return []
    found = RecordStore(_Allowed).read(path) if is_own else None
    return [] if found is None else found.queues.get(_key(queue), [])


def allow_for(queue: Path, packages: Iterable[str]) -> list[str]:
    """Have these packages allowed for a queue from now on, beside those that are; all of them. Raises UserError for
    what is not the name of a package, and OSError."""
    named = list(dict.fromkeys(packages))
    allow_imports(",".join(named))
    return _write(queue, [*allowed_for(queue), *named])


def forget_for(queue: Path, packages: Iterable[str]) -> list[str]:
    """Allow these no more; what is left. Raises UserError for one that is not allowed, and OSError."""
    there, named = allowed_for(queue), list(packages)
    if unknown := [name for name in named if name not in there]:
        raise UserError(f"{unknown[0]!r} is not allowed for {queue}")
    return _write(queue, [name for name in there if name not in named])


def _write(queue: Path, packages: list[str]) -> list[str]:
    path, records = expand_home(_home()) / FILE, RecordStore(_Allowed)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    others = (records.read(path) or _Allowed()).queues
    kept = list(dict.fromkeys(packages))
    queues = {**others, _key(queue): kept}
    records.write(path, _Allowed({key: names for key, names in queues.items() if names}), is_private=True)
    return kept


def _home() -> str:
    return os.environ.get("XDG_CONFIG_HOME") or "~/.config"


def _key(queue: Path) -> str:
    return os.path.realpath(queue)
