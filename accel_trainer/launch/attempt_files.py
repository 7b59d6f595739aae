"""The files of an attempt outside its run folder: its log and its temporary folder."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from accel_trainer.core import processes
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.launch.protocol import TOKEN_VARIABLE

PREFIX = "accel-train-run-"
OWNER_FILE = ".owner"
# Sockets are made in such folders, and the path of one may have 104 bytes on some systems.
MAX_PLACE_BYTES = 40


def scratch_folder(token: str) -> Path:
    """Where it is, from the token of the attempt alone; the token itself would make the path too long."""
    return _place() / f"{PREFIX}{hashlib.sha256(token.encode()).hexdigest()[:10]}"


def _place() -> Path:
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) <= MAX_PLACE_BYTES else Path("/tmp")


def make_scratch(token: str) -> Mapping[str, str]:
    """Make the folder; the variable that sends an attempt's processes there."""
    folder = scratch_folder(token)
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / OWNER_FILE).write_text(token)
    return {"TMPDIR": str(folder)}


def remove_scratch(token: str) -> None:
    """Once all processes of the attempt are gone."""
    shutil.rmtree(scratch_folder(token), ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the folders of this user's attempts that were killed with their runner and never resumed."""
    for folder in _place().glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid != os.getuid():
                continue
            token = (folder / OWNER_FILE).read_text()
            is_ours = scratch_folder(token) == folder and Owner(this_host(), token).is_dead()
            if is_ours and not processes.pids_with_env(TOKEN_VARIABLE, token):
                remove_scratch(token)


def new_log(folder: Path, name: str) -> Path:
    """Make one, empty, with the first n that is free."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / f"{name}.{number}.log"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
        number += 1


def newest_log(folder: Path, name: str) -> Path | None:
    """That of the last attempt; None before the first."""
    found = (re.fullmatch(rf"{re.escape(name)}\.(\d+)\.log", path.name) for path in folder.glob("*.log"))
    number = max((int(match[1]) for match in found if match is not None), default=None)
    return None if number is None else folder / f"{name}.{number}.log"
