"""Files and folders that appear whole or not at all, bounded reading of what others may have written."""

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from accel_trainer.core.disk_calls import on_disk, watched
from accel_trainer.core.errors import UserError
from accel_trainer.core.exclusive_move import move_own, replace_own
from accel_trainer.core.lease import Owner, is_dead_token
from accel_trainer.core.outage import UnsuitableFile
from accel_trainer.core.rename import is_renamed


def _nobody_objects() -> None:
    """The check of what may be replaced in any case."""


def _nobody_moves_it(aside: Path) -> bool:
    """Of what stays where it was written."""
    return False


def write_atomic(
    path: Path,
    content: str | bytes | Iterable[bytes | memoryview],
    *,
    durable: bool = True,
    is_private: bool = False,
    check: Callable[[], None] = _nobody_objects,
    aside_in: Path | None = None,
) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, never half of one.

    content: the whole, or pieces of it. `durable` waits for the disk, so that the new file outlives a power cut; leave
    it out for what is rewritten every second. `is_private`: nobody else may read or write it. check, aside_in: as of
    `replacing`. What is durable, and no iterator, is tried again as of `on_disk`; the next one of what is written every
    second has it all. An OSError names the file.
    """
    pieces = [content.encode()] if isinstance(content, str) else [content] if isinstance(content, bytes) else content

    def write() -> None:
        with (
            replacing(path, durable=durable, check=check, aside_in=aside_in) as aside,
            open_to_write(aside, 0, is_private=is_private) as file,
        ):
            for piece in pieces:
                with watched(path):
                    file.write(piece)

    try:
        if durable and not isinstance(pieces, Iterator):
            on_disk(write, path)
        else:
            write()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing(
    path: Path,
    *,
    durable: bool = False,
    check: Callable[[], None] = _nobody_objects,
    aside_in: Path | None = None,
) -> Iterator[Path]:
    """Gives a path beside `path` at which to write a file, or make a folder; what is there at the end is renamed to
    `path`, and removed on any error.

    A file replaces what is there in one step; of a folder the older one is removed before. `durable` waits for the
    disk, so that all of it outlives a power cut. check: is called just before anything of that can be seen, and raises
    where nothing of it may be; it is asked first where something fails. aside_in: the writer's own folder
    (`core.fence`), on the same disk, in the place of that of `path`.
    """
    try:
        with _aside(path, aside_in) as aside:
            yield aside
            if durable:
                _sync(aside)
            is_in_the_way = aside.is_dir() and os.path.lexists(path)  # which a rename would not replace
            check()
            if is_in_the_way:
                remove_tree(path if aside_in is None else rename_over(path, aside_in / f"{aside.name}.old"))
            rename_over(aside, path)
    except OSError:
        check()
        raise
    if durable:
        sync_folder(path.parent)


def rename_over(source: Path, target: Path) -> Path:
    """Rename what nobody else renames, and give the target. A network drive may have done so and report an error."""
    before = os.lstat(source)
    try:
        with watched(target):
            source.replace(target)
    except OSError as error:
        if not is_renamed(source, target, before, error):
            raise
    return target


def write_new(
    path: Path,
    content: bytes,
    *,
    aside_in: Path | None = None,
    replace: bool = False,
    has_moved_on: Callable[[Path], bool] = _nobody_moves_it,
) -> None:
    """As `write_atomic`, but nothing is replaced, unless that is wanted, and never by others that write here by this.

    aside_in: where it is written first, by default beside `path`; all that write to a name have to take the same
    folder. has_moved_on: as of `move_own`, given the path there. Raises FileExistsError where there is such a file.
    """

    def write() -> None:
        aside.write_bytes(content)
        _sync(aside)

    try:
        with _aside(path, aside_in) as aside:
            on_disk(write, path)
            if replace:
                replace_own(aside, path)
            else:
                move_own(aside, path, partial(has_moved_on, aside))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    on_disk(partial(sync_folder, path.parent), path.parent)


@contextmanager
def _aside(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A path beside `path`, or in a folder, that no other process has; what is there after an error is removed."""
    aside = (folder or path.parent) / (f".{shortened(path.name)}.{Owner.new().token}.tmp")
    try:
        yield aside
    except BaseException:
        remove_tree(aside)
        raise


def shortened(name: str) -> str:
    """The beginning of a name: a file system takes 255 bytes, and we need some more."""
    return name.encode()[:100].decode(errors="ignore")


def _sync(path: Path) -> None:
    """Wait until a file, or a folder and all that is in it, is on the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            _sync(inside)
        sync_folder(path)
        return
    with path.open("rb") as file, watched(path):
        os.fsync(file.fileno())


def remove_tree(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it. What cannot be removed stays."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_stale_temp_files(folder: Path) -> None:
    """Remove what processes of this machine that are gone have left half-written in a folder."""
    for path in folder.glob(".*.tmp"):
        token = path.name.removesuffix(".tmp").rpartition(".")[2]
        if is_dead_token(token):
            remove_tree(path)


def is_private_to_us(path: Path) -> bool:
    """Whether this user has written a file by `write_atomic` with `is_private`, and nobody else can have: owner and
    mode are as of a new one. Where a file system keeps neither, that is true of every file."""
    probe = path.with_name(f".{Owner.new().token}.tmp")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            of_new, of_file = probe.lstat(), path.lstat()
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        return False
    return (of_new.st_uid, of_new.st_mode) == (of_file.st_uid, of_file.st_mode)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder outlive a power cut (a no-op where folders cannot be synced)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


MEBIBYTE = 2**20
# What is answered for a link that is not followed; to who writes, also for a pipe or a socket, and a folder.
NO_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR})


def open_regular(path: str | Path, flags: int = os.O_RDONLY, *, follow_links: bool = True, mode: int = 0o666) -> int:
    """A descriptor of a regular file, which is never waited for: a pipe would wait for its other end. Raises OSError;
    UnsuitableFile, whose strerror says what else it is. As `opener` of `open` it writes to no link of others."""
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        with watched(path):
            descriptor = os.open(path, flags, mode)
    except OSError as error:
        if error.errno not in NO_FILE or (follow_links and error.errno == errno.ELOOP):
            raise
        what = error.strerror if error.errno == errno.ELOOP else "not a regular file"
        raise UnsuitableFile(error.errno, what, str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsuitableFile(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def open_to_write(path: Path, flags: int = os.O_APPEND, *, is_private: bool = False, buffering: int = -1) -> BinaryIO:
    """A regular file to which is written, made where there is none; nothing is written through a link. Raises OSError,
    also where there is something else of that name."""
    flags |= os.O_WRONLY | os.O_CREAT
    descriptor = open_regular(path, flags, follow_links=False, mode=0o600 if is_private else 0o666)
    return os.fdopen(descriptor, "ab" if flags & os.O_APPEND else "wb", buffering)


def append_text(path: Path, text: str) -> None:
    """Write at the end of a regular file, by `open_to_write`. Raises OSError."""
    with open_to_write(path) as file:
        file.write(text.encode(errors="replace"))


def read_start(path: Path, number: int) -> bytes:
    """The first bytes of a regular file. Raises OSError, as `open_regular`."""
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        return file.read(number)


def read_bytes(path: str | Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """The whole content of a regular file. Raises OSError; UnsuitableFile, whose strerror says what else it is."""
    descriptor = open_regular(path, follow_links=follow_links)
    try:
        about = os.fstat(descriptor)
        content = b""
        if about.st_size <= max_bytes:
            with os.fdopen(descriptor, "rb", closefd=False) as file, watched(path):
                content = file.read(about.st_size + 1)  # one byte more shows that a file has grown meanwhile
    finally:
        os.close(descriptor)
    if max(about.st_size, len(content)) > max_bytes:
        raise UnsuitableFile(errno.EFBIG, f"larger than {max_bytes // 1024:,} KiB", str(path))
    if len(content) < about.st_size:
        what = f"{len(content):,} bytes could be read of {about.st_size:,}"
        raise OSError(errno.EIO, what, str(path))
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
    """A path with `~` or `~user` expanded. A file whose name only looks like that stays as it is.

    Raises UserError for `~` where there is no home folder: no HOME, and no account of this user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        if str(path).partition("/")[0] == "~":
            raise UserError(f"{path}: there is no home folder", hint="set HOME, or give the whole path") from error
        return Path(path)  # there is no such user


def expand_home_if_any(path: str | os.PathLike[str]) -> Path:
    """The same for a folder that may not be needed: where there is no home folder, it is one that is not there."""
    try:
        return expand_home(path)
    except UserError:
        return Path(path)


_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)


def expand_path(path: str | os.PathLike[str]) -> Path:
    """A path that a person has given, with `~` and environment variables expanded, as a shell does.

    What is there under the name as it stands is meant. Raises UserError for a variable that is not set.
    """

    def value(named: re.Match[str]) -> str:
        name = named[1] or named[2]
        if not (found := os.environ.get(name)):
            raise UserError(f"{path}: the variable {name} is not set", hint="set it, or give the whole path")
        return found

    given = os.fspath(path)
    if not ("$" in given or given.startswith("~")) or os.path.lexists(given):
        return Path(path)
    return expand_home(_VARIABLE.sub(value, given))


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/accel-train, or ~/.cache/accel-train. It may be deleted at any time."""
    return expand_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "accel-train"
