"""The right to put a file at a name, where a file system has neither RENAME_NOREPLACE nor hard links.

The right is a folder `.<folder>.<name>.placing` with something in it. Who wants it makes a folder of its own, moves its
file into that, and renames it to this name: a folder that has something in it is never replaced, so one of several
processes can. It makes sure that there is no file of the name, by O_EXCL, which the file server decides, and moves its
file there: the folder is empty, and the right is free.

Whoever is killed or suspended meanwhile may lose the right at any moment, without harm: others move the file out of the
folder, back to where it was, and whatever its process does next fails, because its file is not in the folder. So there
is no lease, and nobody has to be known to be dead. A kill leaves the file in one of both folders, and sometimes an
empty file at the name.
"""

import errno
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.lease import Owner, is_dead_token
from accel_trainer.core.rename import POLL_S, create_new, is_there, rename_unique, was_moved

SUFFIX, OWN_SUFFIX = ".placing", ".own.placing"
# Of a process that is not known to be dead, the right is taken after so long: a move needs some milliseconds.
PATIENCE_S = 5.0
NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})


def is_lock(name: str) -> bool:
    """Whether a folder of this name may have files in it that are just being placed."""
    return name.startswith(".") and name.endswith(SUFFIX)


def place(source: Path, target: Path, before: os.stat_result, *, replace: bool = False) -> None:
    """Move a file of this process's own to a name, by the right to do so: no other file is replaced, unless that is
    wanted. All that may have the name have to be placed so, from the same folder.

    before: the attributes of the file. Raises FileExistsError, FileNotFoundError where another process has taken the
    file, and any other OSError; the file is then where it was.
    """
    while True:
        inside = _acquire(source, target)
        try:
            if not replace:
                os.close(create_new(target, 0o600, os.O_NOFOLLOW))
            inside.rename(target)
        except OSError as error:
            is_gone = isinstance(error, FileNotFoundError) and not is_there(inside)
            if not is_gone:
                _release(inside, source)
                raise
            if is_there(source):
                continue  # somebody has lost patience
            if not was_moved(before, target):
                raise
        with suppress(OSError):
            inside.parent.rmdir()
        return


def remove_left(folder: Path) -> None:
    """Remove what processes that were killed have left of their rights, and of files that were no job's yet."""
    for path in folder.glob(f".*{SUFFIX}"):
        if path.is_symlink() or not path.is_dir():
            continue  # not one of ours
        with suppress(PermissionError):
            for name in filter(_is_dead, _names(path)):
                if name.endswith(".tmp"):
                    (path / name).unlink(missing_ok=True)
        if not path.name.endswith(OWN_SUFFIX) or is_dead_token(path.name.removesuffix(OWN_SUFFIX)[1:]):
            with suppress(OSError):  # an empty one can be removed by whoever may not enter it, too
                path.rmdir()


def _acquire(source: Path, target: Path) -> Path:
    """The path of the file in the folder that is the right to the target's name. Raises OSError: the file is then where
    it was, or another process has taken it (FileNotFoundError)."""
    lock = source.parent / f".{target.parent.name[:60]}.{_beginning(target.name)}{SUFFIX}"
    own = source.parent / f".{Owner.new().token}{OWN_SUFFIX}"
    with suppress(FileExistsError):  # nobody else gives the name: the answer to a first call was lost
        own.mkdir()
    try:
        _open_to_others(own)  # before anything is in it: they may have to take the file out
        if not rename_unique(source, own / source.name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        while not _is_renamed(own, lock, source.name):
            _take_right(lock)
    except OSError:
        _release(own / source.name, source)
        raise
    return lock / source.name


def _open_to_others(own: Path) -> None:
    """Give a folder the group and the mode of the one that it is in, whatever the umask. Where a file system has no
    modes of its own, or no such group, its own are left. Raises OSError where the folder cannot be used."""
    about = own.parent.stat()
    with suppress(OSError):
        os.chown(own, -1, about.st_gid)
    with suppress(OSError):
        own.chmod(stat.S_IMODE(about.st_mode))


def _beginning(name: str) -> str:
    """Of a name: where two have the same, they share a right."""
    return name.encode()[:100].decode(errors="ignore")


def _is_renamed(own: Path, lock: Path, name: str) -> bool:
    try:
        own.rename(lock)
    except OSError as error:
        if is_there(lock / name):  # the answer was lost
            return True
        if error.errno not in NOT_EMPTY and not os.path.lexists(lock):
            raise
        return False
    return True


def _release(inside: Path, source: Path) -> None:
    with suppress(OSError):
        rename_unique(inside, source)
    with suppress(OSError):
        inside.parent.rmdir()


def _take_right(lock: Path) -> None:
    """Wait until the right is free, or take it from who has it. Raises OSError."""
    began = time.monotonic()
    names = first = _names(lock)
    while names == first and not all(map(_is_dead, names)) and time.monotonic() - began < PATIENCE_S:
        time.sleep(POLL_S)
        names = _names(lock)
    if names == first:
        for name in names:
            rename_unique(lock / name, lock.parent / name)
    try:
        lock.rmdir()  # not every file system renames a folder over an empty one
    except OSError as error:
        if error.errno not in NOT_EMPTY | {errno.ENOENT}:
            raise


def names_inside(lock: Path) -> list[str]:
    """What is in the folder of a right. Raises FileNotFoundError where it has gone, OSError."""
    try:
        return os.listdir(lock)  # noqa: PTH208 - only names
    except OSError as error:
        if error.errno != errno.ESTALE:  # so a network drive says that somebody has just removed it
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(lock)) from error


def _names(lock: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return set(names_inside(lock))
    return set()


def _is_dead(name: str) -> bool:
    """Whether the process that has given this name is dead: its token is at the end."""
    return is_dead_token(Path(name).stem.rpartition(".")[2])
