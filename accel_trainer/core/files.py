"""Files that appear whole or not at all, bounded reading of what others may have written, and cached files."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner, is_dead_token


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never half of one.

    `durable` waits for the disk, so that the new file outlives a power cut; leave it out for what is
    rewritten every second. An OSError names the file.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with replacing(path) as aside, aside.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    if durable:
        sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write; what is there at the end is renamed to `path`, and removed on any error."""
    aside = path.with_name(f".{path.name}.{Owner.new().token}.tmp")
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def remove_stale_temp_files(folder: Path) -> None:
    """Remove what processes of this machine that are gone have left half-written in a folder."""
    for path in folder.glob(".*.tmp"):
        token = path.name.removesuffix(".tmp").rpartition(".")[2]
        if is_dead_token(token):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder outlive a power cut (a no-op where folders cannot be synced)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


MEBIBYTE = 2**20


def read_bytes(path: str | Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """The content of a regular file. Raises OSError, whose strerror says what else it is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW))
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = b""
        if about.st_size <= max_bytes:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(about.st_size + 1)  # one byte more tells of a file that has grown meanwhile
    finally:
        os.close(descriptor)
    if max(about.st_size, len(content)) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes // 1024:,} KiB", str(path))
    return content


def read_text(path: Path, max_bytes: int) -> str:
    """As `read_bytes`; what is not UTF-8 is replaced."""
    return read_bytes(path, max_bytes).decode(errors="replace")


def read_json(path: Path, max_bytes: int = 16 * MEBIBYTE) -> Any:
    """What is in a JSON file. Raises OSError or ValueError."""
    try:
        return json.loads(read_bytes(path, max_bytes))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


def expand_home(path: str | os.PathLike[str]) -> Path:
    """A path with `~` or `~user` expanded. A file whose name only looks like that stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user
        return Path(path)


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
        remove_stale_temp_files(path.parent)
        if not path.exists():
            with replacing(path) as aside:
                make(aside)
    return path
