"""Moves of a file of one's own to a name that others may want, on every file system.

In this order: `renameat2` with RENAME_NOREPLACE (local disks); `link` and `unlink` (NFS and sshfs, which refuse that
flag); where there are no hard links either, by the right to the name (`core.place_lock`).
"""

import errno
import filecmp
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.lease import Owner
from accel_trainer.core.place_lock import place
from accel_trainer.core.rename import NO_FLAG, attributes, rename_noreplace, version, was_moved

# What a file system answers that has no hard links of this file: on AFS none between folders, on Linux none of a file
# of somebody else that one may not write.
NO_LINK = NO_FLAG | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}


def move_own(source: Path, target: Path) -> None:
    """Move a file that no other process moves, because its name is this process's own.

    Raises FileExistsError where there is a target, FileNotFoundError where another process has taken the file
    nevertheless, which believes this one dead, and OSError where it is not possible; the file is then where it was.
    """
    before = attributes(source)
    try:
        on_disk(partial(rename_noreplace, source, target), target)
    except FileExistsError:
        if os.path.lexists(source):
            raise
    except FileNotFoundError:
        if not was_moved(before, target):
            raise
    except OSError as error:
        if error.errno in NO_FLAG:
            _link(source, target, before)
        elif not was_moved(before, target):  # whatever is reported where the answer was lost
            raise


def _link(source: Path, target: Path, before: os.stat_result) -> None:
    def link() -> None:
        # A call that has reported an error may be done, and the job taken on from the target: it would be there twice.
        if not _has_more_names(source, before):
            os.link(source, target)

    try:
        on_disk(link, target)
    except FileExistsError:  # also where the answer to a call that succeeded was lost, and the client has asked again
        if not _is_same(source, before, target):
            raise
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in NO_LINK:
            place(source, target, before)
            return
        if not (_is_same(source, before, target) or _has_more_names(source, before)):
            raise
    with suppress(OSError):  # the file has its new name; who finds both removes this one
        source.unlink()


def _has_more_names(path: Path, before: os.stat_result) -> bool:
    """Whether a file of one's own has got a name since; nobody else gives it one."""
    with suppress(OSError):
        return os.lstat(path).st_nlink > before.st_nlink
    return False


def replace_own(source: Path, target: Path) -> None:
    """Rename a file of one's own, replacing what is there. Where moves need the right to a name, this one does, too:
    who has it would replace the file in turn. Raises OSError; the file is then where it was."""
    before = attributes(source)
    if (beside := _moved_beside(source, target)) is None:
        place(source, target, before, replace=True)
        return
    try:
        beside.replace(target)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and was_moved(before, target):
            return
        beside.rename(source)
        raise


def _moved_beside(source: Path, target: Path) -> Path | None:
    """Where the file is now, under a name that nobody else gives; None where that takes the right to a name."""
    beside = target.with_name(f".{Owner.new().token}.tmp")
    try:
        rename_noreplace(source, beside)
    except OSError as error:
        if error.errno not in NO_FLAG:
            raise
    else:
        return beside
    try:
        os.link(source, beside)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return None
    source.unlink()
    return beside


def _is_same(source: Path, before: os.stat_result, target: Path) -> bool:
    """Whether both names are of one file. Where inodes are made up, as on sshfs, time and content have to do."""
    with suppress(OSError):
        now = attributes(target)
        if os.path.samestat(before, now):
            return True
        return version(before) == version(now) and filecmp.cmp(source, target, shallow=False)
    return False
