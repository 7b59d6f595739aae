"""Moves of a file of one's own to a name that others may want, on every file system.

In this order: `renameat2` with RENAME_NOREPLACE (local disks); `link` and `unlink` (NFS and sshfs, which refuse that
flag); where there are no hard links either, by the right to the name (`core.place_lock`).
"""

import errno
import filecmp
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner
from accel_trainer.core.place_lock import place
from accel_trainer.core.rename import (
    NO_FLAG,
    attributes,
    is_gone,
    is_own_there,
    remove_file,
    rename_noreplace,
    version,
    was_moved,
)

# What a file system answers that has no hard links of this file: on AFS none between folders, on Linux none of a file
# of somebody else that one may not write.
NO_LINK = NO_FLAG | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV}


class MoveUndecided(OSError):
    """It could not be seen whether a file was moved: it has both names, or one of them."""


# Whether a file of one's own, of which a link was made, has been moved on from there.
HasMovedOn = Callable[[], bool]


def nobody_else_moves_it() -> bool:
    """Of a file that stays at its new name: it has not moved on."""
    return False


def move_own(source: Path, target: Path, has_moved_on: HasMovedOn = nobody_else_moves_it) -> None:
    """Move a file that no other process moves, because its name is this process's own.

    has_moved_on: asked where a link has reported an error, and may be done all the same: whether others, who may move
    what is at the target, have done so. They remove the name that is this process's own when they have taken the file
    and before they move it on, so that it is found as long as a further link is possible.

    Raises FileExistsError where there is a target, FileNotFoundError where another process has taken the file
    nevertheless, which believes this one dead, and OSError where it is not possible; the file is then where it was,
    but for MoveUndecided.
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
            _Link(source, target, before, has_moved_on).move()
        elif not was_moved(before, target):  # whatever is reported where the answer was lost
            raise


@dataclass
class _Link:
    """A move by a link and the removal of the old name.

    is_doubtful: a call has reported an error and may be done, or may still be.
    """

    source: Path
    target: Path
    before: os.stat_result
    has_moved_on: HasMovedOn
    is_doubtful: bool = False

    def move(self) -> None:
        """As `move_own`."""
        try:
            on_disk(self._make, self.target)
        except FileExistsError:  # also where the answer to a call that succeeded was lost, and the client asked again
            if not (_is_same(self.source, self.before, self.target) or self._has_more_names()):
                raise
        except FileNotFoundError:  # which is not so where the file is there still
            if is_gone(self.source) or not self._is_made():
                raise
        except OSError as error:
            if error.errno in NO_LINK and not self.is_doubtful:
                place(self.source, self.target, self.before)
                return
            if not self._is_made():
                raise
        with suppress(OSError):  # the file has its new name; who finds both removes this one
            remove_file(self.source)

    def _make(self) -> None:
        # The job may have been taken on from the target: a second link would have it there twice.
        if self.is_doubtful and self._is_made():
            return
        try:
            os.link(self.source, self.target)
        except FileNotFoundError:
            # Who has taken the file on from the target has removed this name.
            if not (self.is_doubtful and is_gone(self.source)):
                raise
        except FileExistsError:
            raise
        except OSError as error:
            self.is_doubtful |= error.errno not in NO_LINK
            raise

    def _is_made(self) -> bool:
        """Whether a doubtful call is done. Raises MoveUndecided."""
        if self._has_more_names() or _is_same(self.source, self.before, self.target):
            return True
        try:
            return is_gone(self.source) or self.has_moved_on()
        except (OSError, UserError) as error:
            if is_gone(self.source):
                return True
            words = f"it cannot be seen whether it was moved to {self.target}: {error}"
            raise MoveUndecided(errno.ECANCELED, words, str(self.source)) from error

    def _has_more_names(self) -> bool:
        """Whether the file has got a name since; nobody else gives it one. Not every file system counts them."""
        with suppress(OSError):
            return os.lstat(self.source).st_nlink > self.before.st_nlink
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
    except OSError:  # whatever is reported where the answer was lost
        if is_gone(beside) and was_moved(before, target):
            return
        beside.rename(source)
        raise


def _moved_beside(source: Path, target: Path) -> Path | None:
    """Where the file is now, under a name that nobody else gives; None where that takes the right to a name."""
    beside = target.with_name(f".{Owner.new().token}.tmp")
    for call, impossible in ((rename_noreplace, NO_FLAG), (os.link, NO_LINK)):
        try:
            call(source, beside)
        except OSError as error:
            if error.errno in impossible:
                continue
            if not is_own_there(beside):  # whatever is reported where the answer was lost
                raise
        remove_file(source)
        return beside
    return None


def _is_same(source: Path, before: os.stat_result, target: Path) -> bool:
    """Whether both names are of one file."""
    with suppress(OSError):
        return os.path.samestat(before, attributes(target)) or is_copy(source, before, target)
    return False


def is_copy(path: Path, about: os.stat_result, other: Path) -> bool:
    """Whether two names are of one file where inodes are made up, as on sshfs: time and content have to do."""
    with suppress(OSError):
        return version(about) == version(attributes(other)) and filecmp.cmp(path, other, shallow=False)
    return False
