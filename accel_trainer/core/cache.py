"""Files of the cache: made once, whole, and checked whenever they are to be read."""

import fcntl
import logging
import os
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import (
    MEBIBYTE,
    open_regular,
    open_to_write,
    read_bytes,
    remove_stale_temp_files,
    replacing,
    write_atomic,
)
from accel_trainer.core.outage import UnsuitableFile, persistently

log = logging.getLogger(__name__)

# How often it is tried to lock a file that another process has locked.
LOCK_EVERY_S = 0.2
# Of a file that holds the size of another one and its CRC-32.
MAX_CHECK_BYTES = 100


def cached(path: Path, make: Callable[[Path], None], waiting: Callable[[], None] = lambda: None) -> Path:
    """`path`, which `make(aside)` writes if it is not there yet; who comes meanwhile waits for it, and calls `waiting`
    again and again.

    The file appears whole or not at all, and outlives a power cut. One that is not as it was made, or of which that
    is not known, is made anew. Raises UserError where the cache folder cannot be written; OSError where the file
    cannot be read, MachineFailure or StoppedWaiting where that is waited out (`persistently`).
    """
    if _is_as_made(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open_to_write(path.with_name(f".{path.name}.lock"))
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}; set XDG_CACHE_HOME to a folder") from error
    with lock:
        # Where locks are not shared, as on some network disks, it is made twice and the last one stays.
        while not _is_locked(lock.fileno()):
            waiting()
            time.sleep(LOCK_EVERY_S)
        remove_stale_temp_files(path.parent)
        if not _is_as_made(path):
            if path.exists():
                log.warning("%s in the cache is damaged, or of an older version: it is made anew", path)
            with replacing(path, durable=True) as aside:
                make(aside)
                check = _summary(aside)
            write_atomic(_check_file(path), check)
    return path


def _is_as_made(path: Path) -> bool:
    """Whether a file is there as it was made. Raises OSError, MachineFailure and StoppedWaiting."""
    try:
        read_check = partial(read_bytes, _check_file(path), MAX_CHECK_BYTES)
        check = persistently(read_check, lambda: str(path), may_be_missing=True)
        return check == persistently(partial(_summary, path), lambda: str(path), may_be_missing=True)
    except (FileNotFoundError, NotADirectoryError, UnsuitableFile):
        return False


def _check_file(path: Path) -> Path:
    """Where the size of a file of the cache and its checksum are kept."""
    return path.with_name(f".{path.name}.check")


def _summary(path: Path) -> bytes:
    """The size of a file in bytes, and the CRC-32 of its content."""
    size = checksum = 0
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while content := file.read(MEBIBYTE):
            size += len(content)
            checksum = zlib.crc32(content, checksum)
    return f"{size} {checksum:08x}\n".encode()


def _is_locked(descriptor: int) -> bool:
    """Whether a file is locked for this process now, or cannot be locked at all; False while another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
