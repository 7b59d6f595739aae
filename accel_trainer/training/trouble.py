"""Troubles that a training can run into through no mistake in its job, in words for people."""

import errno
import textwrap
import traceback
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.text import first_line
from accel_trainer.run.status import RunState
from accel_trainer.training.batch_size import is_out_of_memory
from accel_trainer.training.checkpoint import NotSaved, StateStore

NOT_WRITABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be too large",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk has failed",
    errno.EACCES: "permission is missing",
    errno.EPERM: "permission is missing",
}


def explained(error: Exception, place: str, batch_size: int | str, states: StateStore) -> tuple[RunState, str] | None:
    """What an error of a run is, and why, in one line; None of one that is not known.

    place: where the run was, as "at step 3 (epoch 1)".
    """
    if is_out_of_memory(error):
        with suppress(OSError):
            traceback.print_exception(error)  # which layer wanted it
        told = textwrap.shorten(first_line(error), 120, placeholder=" ...")
        return RunState.OUT_OF_MEMORY, f"out of memory {place} with batch_size {batch_size} ({told})"
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE and _is_in(states.folder.parent, error.filename):
        what = f"{error.filename} cannot be written"
        if isinstance(error, NotSaved):
            what = f"the state of step {error.step} cannot be saved in {error.filename}"
        return RunState.FAILED, f"{NOT_WRITABLE[error.errno]}: {what} ({error.strerror}); {_kept(states)}"
    return None


def _is_in(folder: Path, file: str | None) -> bool:
    return file is not None and Path(file).is_relative_to(folder)


def _kept(states: StateStore) -> str:
    step = states.newest_step
    if step is None:
        return "no state was saved before, so the run starts over"
    return f"the state of step {step} is kept, and the run goes on from it"
