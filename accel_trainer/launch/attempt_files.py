"""The files of an attempt outside its run folder: its log and its temporary folder."""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from accel_trainer.core import processes
from accel_trainer.core.files import read_bytes
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.lease import Owner, is_stale, this_host
from accel_trainer.core.process_space import Life, sees_processes
from accel_trainer.core.rename import make_folder

PREFIX = "accel-train-run-"
OWNER_FILE = ".owner"
# Locked (flock) by the process that has made the folder, as long as that lives; and there since somebody has found it
# not locked.
HELD_FILE, LEFT_FILE = ".held", ".left"
# Sockets are made in such folders, and the path of one may have 104 bytes on some systems.
MAX_PLACE_BYTES = 40
MAX_TOKEN_BYTES = 1024


def scratch_folder(token: str) -> Path:
    """Where it is, from the token of the attempt alone; the token itself would make the path too long.

    Folders for temporary files are shared, and others may know the name: only one that this user has made, and nobody
    else can enter, is ever taken for it.
    """
    usual = _place() / _name(token)
    if os.path.lexists(usual) and not _is_ours(usual, token):
        return next((path for path in usual.parent.glob(f"{usual.name}-*") if _is_ours(path, token)), usual)
    return usual


def _place() -> Path:
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) <= MAX_PLACE_BYTES else Path("/tmp")


def _name(token: str) -> str:
    return f"{PREFIX}{hashlib.sha256(token.encode()).hexdigest()[:10]}"


def _is_ours(folder: Path, token: str) -> bool:
    """Whether this user has made the folder for this attempt: no link, and closed to everybody else."""
    try:
        about = folder.lstat()
        is_private = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077
        return is_private and _read_owner(folder) == token
    except OSError:
        return False


def _read_owner(folder: Path) -> str:
    return read_bytes(folder / OWNER_FILE, MAX_TOKEN_BYTES, follow_links=False).decode(errors="replace")


def make_scratch(token: str) -> Mapping[str, str]:
    """Make the folder; the variable that sends an attempt's processes there. Raises OSError."""
    folder = scratch_folder(token)
    if not _is_ours(folder, token):
        folder = _make_private(folder)
        descriptor = os.open(folder / OWNER_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        _hold(folder, token)
    return {"TMPDIR": str(folder)}


# Of this process's folders, by their tokens.
_held: dict[str, int] = {}


def _hold(folder: Path, token: str) -> None:
    """Lock the folder until this process removes it, or ends, however that happens; where there are no locks, it
    has no file of that name."""
    begun = folder / f"{HELD_FILE}.new"
    descriptor = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        begun.rename(folder / HELD_FILE)  # nobody finds it who could lock it first
    except OSError:
        os.close(descriptor)
        begun.unlink(missing_ok=True)
    else:
        _held[token] = descriptor


def _is_left(folder: Path) -> bool:
    """Whether the process that has made the folder was gone ten minutes ago: then its trainers are, too.

    It may be one of another container, of which nothing else is known. The kernel keeps its lock also while it is
    suspended.
    """
    try:
        descriptor = os.open(folder / HELD_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # made by a version that has locked none
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left = os.open(folder / LEFT_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            return is_stale(time.time() - os.fstat(left).st_mtime)
        finally:
            os.close(left)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _make_private(folder: Path) -> Path:
    """Make a folder that was not there, under another name where somebody has that one."""
    name = folder
    while True:
        try:
            name.mkdir(mode=0o700)
        except FileExistsError:
            name = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")
        else:
            return name


def remove_scratch(token: str) -> None:
    """Once all processes of the attempt are gone."""
    if (descriptor := _held.pop(token, None)) is not None:
        os.close(descriptor)  # first: it may be the last file that this process may open
    folder = scratch_folder(token)
    if _is_ours(folder, token):
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the folders of this user's attempts that were killed with their runner and never resumed. None where it
    cannot be seen whether a trainer has outlived its runner; those of another container that shares the folder for
    temporary files, ten minutes after they were found to be nobody's."""
    if not sees_processes():
        return
    for folder in _place().glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            token = _read_owner(folder)
            if scratch_folder(token) != folder:
                continue
            # On a disk of this machine, so those of its earlier boots are meant too.
            owner = Owner(this_host(), token)
            match owner.life():
                case Life.DEAD:
                    is_over = True
                case Life.UNKNOWN:
                    is_over = owner.is_of_this_boot and _is_left(folder)
                case Life.ALIVE:
                    is_over = False
            if is_over and not processes.pids_with_env(TOKEN_VARIABLE, token):
                remove_scratch(token)


def new_log(folder: Path, name: str) -> Path:
    """Make one, empty, with the first n that is free."""
    make_folder(folder)  # never the folder of a queue that somebody has moved
    number = 1
    while True:
        path = folder / f"{name}.{number}.log"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
        number += 1


def attempt_logs(folder: Path, name: str) -> dict[int, Path]:
    """The logs of all attempts at a job that are there, by their numbers, in their order."""
    found = (re.fullmatch(rf"{re.escape(name)}\.(\d+)\.log", path.name) for path in folder.glob("*.log"))
    numbers = sorted(int(match[1]) for match in found if match is not None)
    return {number: folder / f"{name}.{number}.log" for number in numbers}


def newest_log(folder: Path, name: str) -> Path | None:
    """That of the last attempt; None before the first."""
    return next(reversed(attempt_logs(folder, name).values()), None)
