"""Renames that replace nothing, on every file system.

In this order: `renameat2` with RENAME_NOREPLACE (local disks); `link` and `unlink` (NFS and sshfs, which refuse that
flag); where there are no hard links either, a new empty file takes the name first and is then replaced.
"""

import ctypes
import errno
import filecmp
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

# For so long a client of a network drive may remember that there was no file of a name.
LONGEST_MEMORY_S, POLL_S = 60.0, 0.05
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCL = -100, 1, 4
# What a system or a file system answers that has no such rename, or no hard links of this file: on AFS none between
# folders, on Linux none of a file of somebody else that one may not write.
NO_FLAG = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
NO_LINK = NO_FLAG | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}


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


def move_own(source: Path, target: Path) -> None:
    """Move a file that no other process moves, because its name is this process's own.

    Raises FileExistsError where there is a target, FileNotFoundError where another process has taken the file
    nevertheless, which believes this one dead, and OSError where it is not possible; the file is then where it was.
    """
    before = attributes(source)
    try:
        rename_noreplace(source, target)
    except FileExistsError:
        if os.path.lexists(source):
            raise
    except FileNotFoundError:
        if not was_moved(before, target):
            raise
    except OSError as error:
        if error.errno not in NO_FLAG:
            raise
        _link(source, target, before)


def _link(source: Path, target: Path, before: os.stat_result) -> None:
    try:
        os.link(source, target)
    except FileExistsError:  # also where the answer to a call that succeeded was lost, and the client has asked again
        if not _is_same(source, before, target):
            raise
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        _take_name(source, target)
        return
    with suppress(OSError):  # the file has its new name; who finds both removes this one
        source.unlink()


def _take_name(source: Path, target: Path) -> None:
    """Make the target, empty, and replace it: nobody can take the name in between."""
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        empty = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    try:
        if not _is_still(empty, target):  # somebody has moved or written it
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.rename(target)
    except OSError:
        if not os.path.lexists(source) and is_there(target) and not _is_still(empty, target):
            return  # the answer was lost
        with suppress(OSError):
            if _is_still(empty, target):
                target.unlink()
        raise


def _is_still(empty: os.stat_result, path: Path) -> bool:
    with suppress(OSError):
        now = os.lstat(path)
        return now.st_size == 0 and os.path.samestat(empty, now)
    return False


def rename_unique(source: Path, target: Path) -> bool:
    """Rename to a name that no other process gives; False where the source is gone.

    On NFS a rename may succeed and report an error: whether it has is decided by the target being there. Raises
    OSError where it is not permitted: trying again would not help.
    """
    try:
        source.rename(target)
    except OSError as error:
        if is_refused(source, target, error):
            raise
        return is_there(target)
    return True


def is_there(path: Path) -> bool:
    """Whether there is such a file. A network drive's client may remember for some seconds that there was none: where
    the listing has it, it is waited for."""
    with suppress(FileNotFoundError):
        attributes(path)
        return True
    return False


def is_refused(source: Path, target: Path, error: OSError) -> bool:
    """Whether a file could not be moved for another reason than that it is gone, or has moved all the same."""
    if isinstance(error, FileNotFoundError):  # whatever is there by now: another file may have got the name
        return not target.parent.is_dir()
    return os.path.lexists(source)


def attributes(path: Path) -> os.stat_result:
    """As `os.lstat`, but of a file that the listing has and the client believes missing it waits for the client."""
    deadline = time.monotonic() + LONGEST_MEMORY_S
    while True:
        try:
            return os.lstat(path)
        except FileNotFoundError:
            if not _is_listed(path) or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def _is_listed(path: Path) -> bool:
    with suppress(OSError):
        return path.name in os.listdir(path.parent)  # noqa: PTH208 - only names
    return False


def was_moved(before: os.stat_result, target: Path) -> bool:
    """Whether a file, as it was before, is now at the target."""
    with suppress(OSError):
        now = attributes(target)
        return os.path.samestat(before, now) or _version(before) == _version(now)
    return False


def _is_same(source: Path, before: os.stat_result, target: Path) -> bool:
    """Whether both names are of one file. Where inodes are made up, as on sshfs, time and content have to do."""
    with suppress(OSError):
        now = attributes(target)
        if os.path.samestat(before, now):
            return True
        return _version(before) == _version(now) and filecmp.cmp(source, target, shallow=False)
    return False


def _version(about: os.stat_result) -> tuple[int, int]:
    return about.st_mtime_ns, about.st_size
