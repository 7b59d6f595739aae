"""What takes long to make and is made once: kept in the user's cache folder and shared by all processes."""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from accel_trainer.errors import UserError
from accel_trainer.files import put_in_place, remove_half_written


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/accel-train, or ~/.cache/accel-train. It may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "accel-train"


def cached(path: Path, make: Callable[[Path], None]) -> Path:
    """`path`, which `make(aside)` writes if it is not there yet; who comes meanwhile waits for it.

    The file appears whole or not at all. Raises UserError where the cache folder cannot be written.
    """
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}; set XDG_CACHE_HOME to a folder") from error
    with lock:
        # Where locks are not shared, as on some network disks, it is made twice and the last one stays.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        remove_half_written(path.parent)
        if not path.exists():
            with put_in_place(path) as aside:
                make(aside)
    return path
