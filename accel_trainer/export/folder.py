"""The folder of an export: written aside, renamed when it is whole; what others have in it is never overwritten."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, read_json, replacing
from accel_trainer.core.rename import make_folder
from accel_trainer.core.text import listed

CONFIG = "config.json"
# In config.json: what this package says of the export.
OWN = "accel_train"
VERSION = 1
_ELSEWHERE = "give another folder, or move it away"


@contextmanager
def exported_folder(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path` to write the export in, which is there as `path` at the end, and gone after an
    error. Raises UserError where there is anything but an earlier export in `path`, just as it was written."""
    refuse_others(path)
    make_folder(path.absolute().parent, parents=True)
    with replacing(path, durable=True, check=partial(refuse_others, path)) as aside:
        make_folder(aside)
        yield aside


def refuse_others(path: Path) -> None:
    """Raises UserError for a folder with files that no export has written there, or that were changed since."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"{path} is no folder", hint=_ELSEWHERE)
    there = files_in(path)
    if not there:
        return
    recorded = read_own(path).get("files", {}) if CONFIG in there else {}
    if others := sorted(there - recorded.keys() - {CONFIG}):
        raise UserError(f"{path} has files of something else: {listed(others, 4)}", hint=_ELSEWHERE)
    if changed := [name for name in sorted(recorded) if name in there and sha256(path / name) != recorded[name]]:
        raise UserError(f"{path} has files that were changed since: {listed(changed, 4)}", hint=_ELSEWHERE)


def read_own(path: Path) -> dict[str, Any]:
    """What this package has said of an export; empty for what is none. Raises UserError for an unknown version."""
    try:
        config = read_json(path / CONFIG)
    except (OSError, ValueError):
        return {}
    own = config.get(OWN) if isinstance(config, dict) else None
    if not isinstance(own, dict) or not isinstance(own.get("files"), dict):
        return {}
    if own.get("version") != VERSION:
        raise UserError(f"{path} is an export of version {own.get('version')}, this is {VERSION}")
    return own


def write_config(folder: Path, config: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Write config.json, last of all: with the checksums of the other files. Raises OSError."""
    files = {name: sha256(folder / name) for name in sorted(files_in(folder))}
    content = {**config, OWN: {"version": VERSION, **own, "files": files}}
    write_json(folder / CONFIG, content)


def write_json(path: Path, content: Any) -> None:
    """Indented, with a newline at its end. Raises OSError."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Of the content of a file, in hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MEBIBYTE):
            digest.update(block)
    return digest.hexdigest()


def files_in(path: Path) -> set[str]:
    """The names of all files below a folder, relative to it; what Python has compiled of them does not count."""
    found = (file.relative_to(path) for file in path.rglob("*") if not file.is_dir() or file.is_symlink())
    return {file.as_posix() for file in found if "__pycache__" not in file.parts}
