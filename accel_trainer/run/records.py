"""The JSON files of a run folder beside status.json: config, classes, origin, found, environment."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from accel_trainer.config.renamed import with_new_names
from accel_trainer.config.rules import FIRST_RULES
from accel_trainer.core.errors import UserError
from accel_trainer.core.fence import move
from accel_trainer.core.files import MEBIBYTE, read_bytes
from accel_trainer.core.outage import persistently
from accel_trainer.core.record_store import strict_json
from accel_trainer.core.text import listed
from accel_trainer.run.folder import RunFolder

MAX_RECORD, MAX_COUNT, MAX_RATE = 16 * MEBIBYTE, 2**53, 1e39


@dataclass(frozen=True)
class Origin:
    """origin.json: what a run that started over has started from.

    submission: which submission of the job started over. epoch: whose weights it started from. weights: their file,
    relative to the run folder; None where the state of that epoch was there. rules: those that it is trained by; None
    where a version that knew of none wrote this.
    """

    submission: str | None = None
    epoch: int | None = None
    weights: str | None = None
    rules: int | None = None


def read_origin(run: RunFolder) -> Origin:
    """origin.json; one without content when there is none that can be read. A field of another type counts as missing,
    and the others stay: or a run whose submission is known would start over again."""
    fields = {"submission": str, "epoch": int, "weights": str, "rules": int}
    content: dict[str, Any] = _read_object(run.origin)
    content = {name: value for name, value in content.items() if type(value) is fields.get(name)}
    if content.get("epoch", 0) not in range(MAX_COUNT):
        del content["epoch"]
    return Origin(**content)


def write_origin(run: RunFolder, origin: Origin) -> None:
    """Write origin.json. Raises OSError."""
    record = {name: value for name, value in vars(origin).items() if name != "rules" or value is not None}
    run.write(run.origin, json.dumps(record) + "\n")


def read_found(run: RunFolder) -> Mapping[str, Any]:
    """found.json: the numbers that were found for `auto` and the like, by these words; empty when it cannot be read.

    What is no such number counts as not found.
    """
    return {word: number for word, number in _read_object(run.found).items() if _is_found(word, number)}


def _is_found(word: str, number: object) -> bool:
    """A batch size, or a learning rate."""
    if word == "auto":
        return type(number) is int and number in range(1, MAX_COUNT)
    return type(number) in (int, float) and isinstance(number, int | float) and 0 < number <= MAX_RATE


def write_found(run: RunFolder, found: Mapping[str, Any]) -> None:
    """Write found.json. Raises OSError."""
    _write_indented(run, run.found, found)


def read_environment(run: RunFolder) -> Mapping[str, Any]:
    """environment.json: packages, machine and devices of the attempts; empty when it cannot be read."""
    return _read_object(run.environment)


def write_environment(run: RunFolder, environment: Mapping[str, Any]) -> None:
    """Write environment.json. Raises OSError."""
    _write_indented(run, run.environment, environment)


def read_config(run: RunFolder) -> Mapping[str, Any]:
    """config.json: the completed job that was trained here, with arguments by the names that they have now.

    Where it records no `rules`, the run was begun before there were such records, by the first ones. Raises UserError
    where there is none.
    """
    try:
        config = _read_json(run.config)
    except FileNotFoundError as error:
        raise _no_config(run) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{run.config} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{run.config} is not the config of a run")
    return {"rules": FIRST_RULES, **with_new_names(config)}


def _no_config(run: RunFolder) -> UserError:
    """What a folder is that has no config.json, and what to do with a run of other code."""
    if not (found := run.of_other_code()):
        return UserError(f"{run.path} is not a run folder: it has no {run.config.name}")
    args = run.args_of_other_code
    job = f"accel-train migrate {shlex.quote(str(args))} writes its job in today's words; " if args.exists() else ""
    return UserError(
        f"{run.path} holds a run of other code, such as the older program ({listed(found, 4)}), and no "
        f"{run.config.name}",
        hint=f"{job}a job starts from its weights with finetune true, finetune_args "
        f'{{"starting_params": "{run.path}"}} and another model_dir (docs/migrating.md)',
    )


def write_config(run: RunFolder, completed: Mapping[str, Any]) -> None:
    """Write config.json; while it is there, a run was begun. Raises OSError."""
    _write_indented(run, run.config, completed)


def read_classes(run: RunFolder) -> list[str]:
    """classes.json: the names of the classes, in the order of the logits. Raises UserError."""
    try:
        return [str(entry["class"]) for entry in _read_json(run.classes)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the classes of the run cannot be read: {error!r}", where=run.classes) from error


def keep_classes(run: RunFolder, names: Sequence[str], subset: Sequence[int] | None) -> None:
    """Write classes.json once. Where a run goes on with other classes, which was allowed, the old file is kept beside
    the new one. Raises OSError and UserError."""
    if run.has_run and run.classes.exists():
        if read_classes(run) == list(names):
            return
        run.check_owner()
        before = next(path for number in count(1) if not (path := run.earlier_classes(number)).exists())
        move(run.classes, before)
    write_classes(run, names, range(len(names)) if subset is None else subset)


def write_classes(run: RunFolder, names: Sequence[str], original_indices: Sequence[int]) -> None:
    """Write classes.json: for each logit its class, and the index of that in the whole data set. Raises OSError."""
    classes = enumerate(zip(names, original_indices, strict=True))
    content = [{"label": label, "class": name, "original_index": index} for label, (name, index) in classes]
    _write_indented(run, run.classes, content)


def _read_object(path: Path) -> dict[str, Any]:
    """What a file holds that may be missing or damaged. A trainer waits for a disk that is away: it would take the run
    for another one."""
    try:
        content = _read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_json(path: Path) -> Any:
    return persistently(partial(_strict_json, path), lambda: str(path), may_be_missing=True)


def _strict_json(path: Path) -> Any:
    return strict_json(read_bytes(path, MAX_RECORD))


def _write_indented(run: RunFolder, path: Path, content: object) -> None:
    run.write(path, json.dumps(content, indent=2) + "\n")
