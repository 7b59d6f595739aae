"""What a launcher and its workers agree on: variables, arguments, files, and who owns the run folder."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.lease import Owner, is_dead_token
from accel_trainer.core.processes import pids_with_env, stop_request
from accel_trainer.core.text import listed
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import LockGuard, LockLost, acquire, find_lock, held, meanwhile

# How often a prewarmed worker looks for its arguments, and whether its runner is alive.
ARGUMENTS_EVERY_S, RUNNER_EVERY_S = 0.02, 3.0
# How often a trainer looks whether its run folder is its own still: sooner than another could have started in it.
LOCK_EVERY_S = 3.0

# Of a line in a log that says what is wrong.
ERROR_PREFIX = "error: "
# The option of a trainer that gives the number of its launcher's lock.
LOCK = "--lock"
# In place of a trainer's arguments: they will be in the file that follows, as a JSON array.
PREWARM = "--stand-by"
# After that file: the job that is expected has wandb among its trackers.
WITH_WANDB = "--with-wandb"


def prewarm_cancelled(arguments: Path) -> Path:
    """The file that is there once a process that waited for this file of arguments was asked to stop, and ends."""
    return arguments.with_suffix(".stood-down")


def refuse_leftovers(run: RunFolder, token: str) -> None:
    """Raises UserError while processes run that an owner of a run folder, with this token, has started."""
    if left := pids_with_env(TOKEN_VARIABLE, token):
        raise UserError(
            f"model_dir: what a dead process has started is still ending in {run.path}: processes "
            f"{listed(map(str, left))}; try again when they are gone"
        )


def wait_for_arguments(file: Path, preload: Callable[[], object]) -> list[str] | None:
    """Preload, and wait for the arguments of a job in a JSON file; None after a signal to stop or the runner's end."""
    preload()
    token, looked_at = os.environ.get(TOKEN_VARIABLE, ""), -math.inf
    while not file.exists():
        # A runner that died before we could ask for a signal at its death has sent none.
        if time.monotonic() - looked_at > RUNNER_EVERY_S:
            looked_at = time.monotonic()
            if is_dead_token(token):
                return None
        if stop_request():
            # First this, then another look: either we see the arguments or the runner sees that we are gone.
            prewarm_cancelled(file).touch()
            if not file.exists():
                return None
        time.sleep(ARGUMENTS_EVERY_S)
    arguments: list[str] = json.loads(file.read_text())
    return arguments


@contextmanager
def owned_folder(run: RunFolder, rank: int, token: str, *, lock_number: int | None = None) -> Iterator[RunFolder]:
    """The run folder as its owner writes it: the launcher of this worker, whose lock has this token, or else itself.

    Rank 0 exits, writing nothing more, as soon as another process has taken the folder over: a runner that is
    suspended, as by SIGSTOP, loses its lease and is replaced elsewhere, and cannot stop its trainer.
    lock_number: that of its launcher's lock, where it has one. Raises UserError.
    """
    if rank != 0:
        yield run
        return
    if not token:
        acquired = acquire(run, Owner.new(), end_leftovers=partial(refuse_leftovers, run), say=print)
        with held(acquired, _exit_on_loss):
            yield LockGuard(acquired).owned(run)
        return
    if (lock := find_lock(run, token, lock_number)) is None:
        if lock_number is not None:
            raise UserError(f"another process has taken {run.path} over: its lock is gone", key="model_dir")
        yield run
        return

    def check() -> None:
        with suppress(OSError):  # nothing is known at the moment
            lock.check()

    with meanwhile(check, LOCK_EVERY_S, _exit_on_loss):
        yield LockGuard(lock).owned(run)


def _exit_on_loss(error: LockLost) -> None:
    print(f"{ERROR_PREFIX}{error}", file=sys.stderr, flush=True)
    os._exit(1)
