"""Renames, and what became of them: a network drive may do one and report an error, and remember what was."""

import ctypes
import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.lease import Owner

# For so long a client of a network drive may remember that there was no file of a name.
LONGEST_MEMORY_S, POLL_S = 60.0, 0.05
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCL = -100, 1, 4
# What a system or a file system answers that has no such rename.
NO_FLAG = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


def rename_noreplace(source: Path, target: Path) -> None:
    """Rename at once. Raises FileExistsError where there is a target, OSError with one of `NO_FLAG` where this is not
    possible, and any other OSError that `os.rename` raises."""
    call = _system_call()
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(source))
    if call(os.fsencode(source), os.fsencode(target)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(target))


@cache
def _system_call() -> Callable[[bytes, bytes], int] | None:
    """Of this system's C library; None where it has none."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            exclusive = library.renamex_np
            exclusive.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint)
            return lambda source, target: int(exclusive(source, target, RENAME_EXCL))
        renameat2 = library.renameat2
    except AttributeError:
        return None
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return lambda source, target: int(renameat2(AT_FDCWD, source, AT_FDCWD, target, RENAME_NOREPLACE))


def create_new(path: Path, mode: int = 0o666, flags: int = 0) -> int:
    """The descriptor of a file that was not there, to be written. Raises FileExistsError where it was: also where the
    file system has another word for that, as sshfs has EPERM for what another client has just made."""
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | flags, mode)
    except PermissionError as error:
        if not is_there(path):
            raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error


def rename_unique(source: Path, target: Path, *, waits: bool = True) -> bool:
    """Rename to a name that no other process gives; False where the source is gone.

    On a network drive a rename may succeed and report any error: whether it has is decided by the target being there.
    waits: as long as the client believes the target missing and lists it; else False may be wrong, and a later look at
    a listing tells. Raises OSError where it is not permitted: trying again would not help.
    """
    try:
        on_disk(partial(source.rename, target), source)
    except OSError as error:
        if is_own_there(target) if waits else os.path.lexists(target):
            return True
        if is_refused(source, target, error):
            raise
        return False
    return True


def make_folder(path: Path, *, parents: bool = False) -> None:
    """Make a folder, if there is none. Raises OSError where there is none after that.

    A network drive may have made it and report any error, and its client believe it missing: the second call has it ask
    its server.
    """
    with suppress(OSError):
        path.mkdir(parents=parents, exist_ok=True)
        return
    path.mkdir(parents=parents, exist_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file, if there is one. Raises OSError where it stays: a network drive may have removed it and report any
    error."""
    try:
        on_disk(partial(path.unlink, missing_ok=True), path)
    except OSError:
        if not is_gone(path):
            raise


def is_there(path: Path) -> bool:
    """Whether there is such a file. A network drive's client may remember for some seconds that there was none: where
    the listing has it, it is waited for."""
    with suppress(FileNotFoundError):
        attributes(path)
        return True
    return False


def is_own_there(path: Path) -> bool:
    """The same of a name that nobody else gives, and without waiting: the client is made to ask its server, by the wish
    to make a folder of the name."""
    with suppress(OSError):
        on_disk(partial(os.lstat, path), path)
        return True
    list_anew(path.parent)
    if not is_listed(path):
        return False
    try:
        path.mkdir()
    except OSError:  # it is there, as the client knows from now on; where it does not, it is waited for
        return is_there(path)
    path.rmdir()  # it has gone since
    return False


def is_refused(source: Path, target: Path, error: OSError) -> bool:
    """Whether a file could not be moved for another reason than that it is gone, or has moved all the same."""
    if isinstance(error, FileNotFoundError):  # whatever is there by now: another file may have got the name
        return not target.parent.is_dir()
    return not is_gone(source)


def is_gone(path: Path) -> bool:
    """Whether a file is not there, by opening it: attributes and names may be remembered, the server is asked of what
    is opened."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ESTALE)
    return False


def attributes(path: Path) -> os.stat_result:
    """As `os.lstat`, but of a file that a new listing has and the client believes missing it waits for the client."""
    deadline, is_new = time.monotonic() + LONGEST_MEMORY_S, False
    while True:
        try:
            return on_disk(partial(os.lstat, path), path)
        except FileNotFoundError:
            if not is_new and not path.parent.name.startswith("."):  # not a right to a name, which has to stay empty
                list_anew(path.parent)
            is_new = True
            if not is_listed(path) or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def list_anew(folder: Path) -> None:
    """Have a folder listed as it is now, whatever its client remembers: one lists anew what it has changed itself."""
    probe = folder / f".{Owner.new().token}.tmp"
    with suppress(OSError):
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        finally:
            probe.unlink(missing_ok=True)


def is_listed(path: Path) -> bool:
    """Whether the folder has such a name, which the client may believe missing nevertheless."""
    with suppress(OSError):
        return path.name in os.listdir(path.parent)  # noqa: PTH208 - only names
    return False


def was_moved(before: os.stat_result, target: Path) -> bool:
    """Whether a file, as it was before, is now at the target."""
    with suppress(OSError):
        if _is_listed_as(target, before):
            return True
        now = attributes(target)
        return os.path.samestat(before, now) or version(before) == version(now)
    return False


def is_renamed(source: Path, target: Path, before: os.stat_result, error: OSError) -> bool:
    """Whether a rename of what nobody else renames was done, and reports an error all the same. before: what was at
    the source."""
    # A folder is opened from what the client remembers. At the target of one there is no other: none replaces it.
    asks_nobody = isinstance(error, FileNotFoundError) or stat.S_ISDIR(before.st_mode)
    return (asks_nobody or is_gone(source)) and was_moved(before, target)


def _is_listed_as(path: Path, about: os.stat_result) -> bool:
    """Whether a file that the client believes missing is in a new listing, by its inode; where inodes are made up, a
    listing has none that any file has."""
    if os.path.lexists(path):
        return False
    list_anew(path.parent)
    with os.scandir(path.parent) as entries:
        return any(entry.name == path.name and entry.inode() == about.st_ino for entry in entries)


def version(about: os.stat_result) -> tuple[int, int]:
    """What tells two files apart where inodes are made up, as on sshfs."""
    return about.st_mtime_ns, about.st_size
