"""Files that appear whole or not at all, and what is left of those that did not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accel_trainer.processes import Owner, died_here


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never half of one.

    `durable` waits for the disk, so that the new file outlives a power cut; leave it out for what is
    rewritten every second. An OSError names the file.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with put_in_place(path) as aside, aside.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    if durable:
        sync_folder(path.parent)


@contextmanager
def put_in_place(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write; what is there at the end is renamed to `path`, and removed on any error."""
    aside = path.with_name(f".{path.name}.{Owner.new().token}.tmp")
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def remove_half_written(folder: Path) -> None:
    """Remove what processes of this machine that are gone have left half-written in a folder."""
    for path in folder.glob(".*.tmp"):
        token = path.name.removesuffix(".tmp").rpartition(".")[2]
        if died_here(token):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder outlive a power cut (a no-op where folders cannot be synced)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
