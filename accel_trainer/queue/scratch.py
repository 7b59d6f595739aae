"""A folder for the temporary files of one attempt's processes, so that none of them outlives it.

Libraries remove theirs when they end; what is killed does not.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from accel_trainer import processes
from accel_trainer.processes import Owner, this_host
from accel_trainer.runs import TOKEN_VARIABLE

PREFIX = "accel-train-run-"
# Sockets are made in such folders, and the path of one may have 104 bytes on some systems.
MAX_PATH_BYTES = 70


def scratch_folder(token: str) -> Path:
    """Where it is, from the token of the attempt alone."""
    usual = Path(tempfile.gettempdir()) / f"{PREFIX}{token}"
    return usual if len(os.fsencode(usual)) <= MAX_PATH_BYTES else Path("/tmp") / usual.name


def make_scratch(token: str) -> Mapping[str, str]:
    """Make the folder; the variable that sends an attempt's processes there."""
    folder = scratch_folder(token)
    folder.mkdir(mode=0o700, exist_ok=True)
    return {"TMPDIR": str(folder)}


def remove_scratch(token: str) -> None:
    """Once all processes of the attempt are gone."""
    shutil.rmtree(scratch_folder(token), ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the folders of this user's attempts that were killed, runner and all, and never taken up again."""
    for folder in scratch_folder("").parent.glob(f"{PREFIX}*"):
        token = folder.name.removeprefix(PREFIX)
        with suppress(OSError):
            if folder.lstat().st_uid != os.getuid() or not Owner(this_host(), token).is_dead():
                continue
        if not processes.with_variable(TOKEN_VARIABLE, token):
            remove_scratch(token)
