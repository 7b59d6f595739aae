"""The run that was in a folder before: moved away whole, so that a new one can start clean.

An owner moves it entry by entry, and a rename may hang until another owner has the folder. So the folders to and from
which entries move have their owner's token in their names, and who follows renames them before it believes anything
(`take_over`): a rename that comes later has no source, or no target.
"""

import errno
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.fence import move
from accel_trainer.core.rename import list_anew, make_folder
from accel_trainer.run.folder import RunFolder

# What a rename answers where there is something of that name that it does not replace.
TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


def set_aside(run: RunFolder, others: Collection[str] = (), *, is_unbegun: bool = False) -> Path | None:
    """Move an older run of this folder to `previous/<n>`; where it has gone, or None.

    What is not a run's stays. others: folders of its trackers. is_unbegun: whether that is a run which has an
    origin.json and nothing of its own yet.
    """
    run.check_owner()
    _number(run)
    if not run.has_run and not is_unbegun:
        return None
    make_folder(run.previous)
    begun = run.being_moved if run.aside is None else run.aside / run.being_moved.name
    make_folder(begun)
    with suppress(OSError):  # the next status takes its place here; the log goes on over all runs of the folder
        shutil.copyfile(run.status_file, begun / run.status_file.name)
    if begun != run.being_moved:
        move(begun, run.being_moved)
    ours = {path.name for path in run.contents} | set(others)
    # config.json, or else origin.json, goes last: while it is there, an interrupted move is begun again.
    last = run.config if run.has_run else run.origin
    for entry in sorted(run.path.iterdir(), key=lambda path: path.name == last.name):
        if entry.name in ours:
            run.check_owner()
            move(entry, run.being_moved / entry.name)
    return _numbered(run, run.being_moved)


def take_over(run: RunFolder) -> None:
    """Take over what former owners were moving, as the owner of this folder. Raises OSError.

    An older run stays where it is as far as it came, a new one that was laid out is this owner's.
    """
    _number(run)
    for laid_out in run.next_runs():
        with suppress(FileNotFoundError):  # its owner has just moved the last of it
            is_whole = RunFolder(laid_out).origin.exists()  # which comes last, and goes last
            if not is_whole or (laid_out != run.next_run and not _renamed(laid_out, run.next_run)):
                run.discard(laid_out)


def _number(run: RunFolder) -> None:
    if run.previous.is_dir():
        list_anew(run.previous)  # the rest of the folder this process has changed already
    for moving in run.all_being_moved():
        with suppress(FileNotFoundError):  # its owner has done so
            _numbered(run, moving)


def _numbered(run: RunFolder, moving: Path) -> Path:
    """Give an older run the next number that is free. A folder that is empty is none."""
    numbers = [int(path.name) for path in run.previous.iterdir() if re.fullmatch(r"[0-9]{1,9}", path.name)]
    number = 1 + max(numbers, default=0)
    while not _renamed(moving, target := run.previous / str(number)):
        number += 1
    return target


def _renamed(source: Path, target: Path) -> bool:
    """False where there is something else of that name."""
    try:
        move(source, target)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return False
    return True
