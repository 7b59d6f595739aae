"""What an owner writes and removes where a successor may follow it while its calls are still on their way.

A process can be suspended, and a call to a network drive hang, between a look at a lock and the rename that the look
was for. So an owner has a folder of its own inside of what it owns. What it writes is written there and renamed out of
it; what it removes is renamed into it first. Who takes its place removes that folder before it believes anything: a
rename that comes later has no source, or no target, and does nothing. A folder is gone when the file system has removed
it, which none does while something is in it: no listing has to be trusted.
"""

import errno
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.files import remove_tree
from accel_trainer.core.rename import is_own_there, is_renamed, is_there

# Why a folder with something in it is not removed: also with a file that a process of this machine has open, which a
# network drive keeps under another name (.nfs..., .fuse_hidden...) until that closes it.
NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY})
# For how long a folder may get new files while it is removed.
RAZE_S, POLL_S = 30.0, 0.05


def move(source: Path, target: Path) -> None:
    """Rename to a name that is free and that nobody else gives. Raises OSError, and not because an answer was lost."""
    before = os.lstat(source)
    try:
        source.rename(target)
    except OSError as error:
        if not is_renamed(source, target, before, error):
            raise


def discard(path: Path, through: Path | None) -> None:
    """Remove a file, or a folder with all that is in it, as the owner whose own folder is `through`; None: as who needs
    none. Raises OSError where it stays, also since another has taken the place over."""
    if through is None:
        remove_tree(path)
    elif (away := _moved(path, through)) is not None:
        remove_tree(away)


def fence(folder: Path, through: Path) -> None:
    """Remove the own folder of a former owner, as its successor, whose own is `through`. Raises OSError.

    After that no call of the former owner replaces or removes anything.
    """
    if (away := _moved(folder, through)) is None:
        return
    if away.is_symlink() or not away.is_dir():
        remove_tree(away)
    else:
        raze(away, RAZE_S, out_to=through.parent)


def _moved(path: Path, through: Path) -> Path | None:
    """Where a file or a folder is now, in an own folder; None where there is none."""
    away = through / f"{secrets.token_hex(8)}.away"
    try:
        path.rename(away)
    except OSError as error:
        if is_own_there(away):  # the answer was lost
            return away
        if not isinstance(error, FileNotFoundError):
            raise
        if not is_there(path):
            return None
        path.rename(away)  # the client has believed that it is missing
    return away


def raze(folder: Path, patience_s: float, out_to: Path | None = None) -> None:
    """Remove a folder until the system says that it is gone. Raises OSError where it is not after so many seconds: a
    client may believe for a while that a file in it is missing, and remove nothing.

    out_to: where what is in it is moved before it is removed, since that may be open in a process that lives still.
    """
    deadline = time.monotonic() + patience_s
    while True:
        for path in _inside(folder):
            remove_tree(path if out_to is None else _moved_out(path, out_to))
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in NOT_EMPTY or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
        else:
            return


def _moved_out(path: Path, folder: Path) -> Path:
    """Where something is now, under a name that says that it can be removed."""
    out = folder / f".{secrets.token_hex(8)}.tmp"
    with suppress(OSError):
        path.rename(out)
    return out if is_own_there(out) else path  # the answer may have been lost, and the client know of no such name


def _inside(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError):
        return list(folder.iterdir())
    return []
