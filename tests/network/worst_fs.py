"""A file system that passes everything through to a folder, the server, and is as bad as a network drive may be.

    python worst_fs.py SERVER MOUNTPOINT OPTIONS

with `WorstOptions` as JSON, in the foreground. Tests mount it by `network.mounts.worst_fs`. Each mount is one client
with caches of its own. Flags of renameat2 give EINVAL, as on NFS; flock and fcntl locks are each client's own.

While it runs it obeys the JSON file `control`:

    {"error": "EIO"}      every call fails so; "ops": ["rename", ...] only these, "path": TEXT only those on paths with
                          this text, "rate": P only this part of them
    {"hang": true}        every call waits until the file says something else: a hard mount whose server is away;
                          "ops" and "path" as above
    {"full": "ENOSPC"}    making files, folders and links, and writing, fail so; "path" as above
    {}                    well again
"""

import errno
import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import mfusepy

UTIME_NOW = (1 << 30) - 1
WRITES = ("create", "link", "mkdir", "symlink", "write")
READS = ("access", "flush", "fsync", "fsyncdir", "getattr", "open", "read", "readdir", "readlink", "statfs")
CHANGES = ("chmod", "chown", "rename", "rmdir", "truncate", "unlink", "utimens")
SIZES = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_frsize", "f_namemax")
ATTRIBUTES = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_ino")
Attributes = dict[str, int]


@dataclass(frozen=True)
class WorstOptions:
    """What one client has; by default nothing is remembered or lost."""

    attr_s: float = 0.0  # the kernel remembers attributes
    entry_s: float = 0.0  # ... names
    negative_s: float = 0.0  # ... that there is no file of a name
    # A folder is listed as it was up to so long ago, but for this client's own changes: sshfs, SMB, NFS with nocto.
    listing_s: float = 0.0
    # Names that renames of others took away are there for so long, also after a rename of them has failed: what a
    # client in user space remembers, as sshfs.
    remember_s: float = 0.0
    # Of rename, link, unlink, mkdir: the call is done, its answer is lost with this probability, and the client asks
    # again, so that the second answer (ENOENT, EEXIST) is what the program gets; or `lost_error`, by name.
    lost_replies: float = 0.0
    lost_error: str = ""
    lost_only: str = ""  # only on paths that contain this
    clock_s: float = 0.0  # the server's clock is ahead of this client's
    whole_seconds: bool = False  # times of files have no nanoseconds: SFTP
    own_inodes: bool = False  # inodes are made up by the client: SFTP
    counts_names: bool = True  # else a file has one, whatever links there are: SFTP
    fsync_s: float = 0.0  # how long it takes
    seed: int = 0


class Fuse(mfusepy.FUSE):
    """With the flags of renameat2, which mfusepy ignores."""

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        return -errno.EINVAL if flags else self.rename_fuse_2(old, new)


def _obeying(op: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def obeyed(fs: "WorstFs", path: str, *args: Any) -> Any:
        fs.before(op, path)
        return call(fs, path, *args)

    return obeyed


def obedient(kind: type["WorstFs"]) -> type["WorstFs"]:
    """Every call looks first at what `control` says."""
    for op in (*READS, *CHANGES, *WRITES):
        setattr(kind, op, _obeying(op, getattr(kind, op)))
    return kind


@obedient
class WorstFs(mfusepy.Operations):
    """One client of one server."""

    use_ns = True

    def __init__(self, server: Path, options: WorstOptions, control: Path) -> None:
        self._server, self._options, self._control = os.path.realpath(server), options, control
        self._draw = random.Random(options.seed)
        self._open: set[int] = set()
        self._listings: dict[str, tuple[float, list[Any]]] = {}
        self._known: dict[str, tuple[float, Attributes]] = {}

    def before(self, op: str, path: str) -> None:
        """Trouble that comes before a call is done."""
        while (order := self._order(op, path)).get("hang"):
            time.sleep(0.05)
        if (name := order.get("full")) and op in WRITES:
            raise OSError(getattr(errno, name), path)
        if (name := order.get("error")) and self._draw.random() < order.get("rate", 1.0):
            raise OSError(getattr(errno, name), path)

    def _order(self, op: str, path: str) -> dict[str, Any]:
        try:
            order = json.loads(self._control.read_bytes())
        except (OSError, ValueError):
            return {}
        return order if op in order.get("ops", [op]) and order.get("path", "") in path else {}

    def _may_lose(self, path: str, again: int) -> None:
        """The call was done. Perhaps its answer is lost: then `again` is what the client gets."""
        options = self._options
        if options.lost_only in path and self._draw.random() < options.lost_replies:
            raise OSError(getattr(errno, options.lost_error) if options.lost_error else again, path)

    def _full(self, path: str) -> str:
        return self._server + path

    def _changed(self, *paths: str) -> None:
        """What this client changes it sees at once: these files, and the listings of their folders."""
        for path in paths:
            self._listings.pop(os.path.dirname(path), None)
            self._known.pop(path, None)
            self._known.pop(os.path.dirname(path), None)

    # -- attributes --

    def getattr(self, path: str, fh: int | None = None) -> Attributes:
        when, known = self._known.get(path, (0.0, {}))
        if known and time.monotonic() - when < self._options.remember_s:
            return known
        about = os.fstat(fh) if fh in self._open else os.lstat(self._full(path))
        found = {name: getattr(about, name) for name in ATTRIBUTES}
        if not self._options.counts_names:
            found["st_nlink"] = 1
        for name in ("st_atime", "st_mtime", "st_ctime"):
            found[name] = getattr(about, f"{name}_ns") + int(self._options.clock_s * 1e9)
            if self._options.whole_seconds:
                found[name] -= found[name] % 10**9
        self._known[path] = time.monotonic(), found
        return found

    def access(self, path: str, amode: int) -> int:
        if not os.access(self._full(path), amode):
            raise OSError(errno.EACCES, path)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._full(path), mode)
        self._changed(path)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(self._full(path), uid, gid)
        self._changed(path)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        if times is None or UTIME_NOW in times:
            os.utime(self._full(path))
        else:
            shift = int(self._options.clock_s * 1e9)
            atime, mtime = (int(at) - shift for at in times)
            if self._options.whole_seconds:
                atime, mtime = atime - atime % 10**9, mtime - mtime % 10**9
            os.utime(self._full(path), ns=(atime, mtime), follow_symlinks=False)
        self._changed(path)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        about = os.statvfs(self._full(path))
        return {name: getattr(about, name) for name in SIZES}

    # -- names --

    def readdir(self, path: str, fh: int) -> list[Any]:
        when, names = self._listings.get(path, (0.0, []))
        if not when or time.monotonic() - when >= self._options.listing_s:
            with os.scandir(self._full(path)) as entries:
                names = [(entry.name, {"st_ino": entry.inode()}, 0) for entry in entries]
            self._listings[path] = time.monotonic(), names
        return [(".", {"st_ino": 1}, 0), ("..", {"st_ino": 1}, 0), *names]

    def unlink(self, path: str) -> int:
        os.unlink(self._full(path))
        self._changed(path)
        self._may_lose(path, errno.ENOENT)
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._full(old), self._full(new))
        self._changed(old, new)
        self._may_lose(old, errno.ENOENT)
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._full(source), self._full(target))
        self._changed(target, source)
        self._may_lose(target, errno.EEXIST)
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._full(target))
        self._changed(target)
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self._full(path))

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._full(path), mode)
        self._changed(path)
        self._may_lose(path, errno.EEXIST)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._full(path))
        self._changed(path)
        return 0

    # -- content --

    def open(self, path: str, flags: int) -> int:
        return self._opened(path, flags & ~os.O_APPEND, 0)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        flags = fi if isinstance(fi, int) else os.O_RDWR  # with O_EXCL the server decides
        opened = self._opened(path, flags & ~os.O_APPEND | os.O_CREAT, mode)
        self._changed(path)
        return opened

    def _opened(self, path: str, flags: int, mode: int) -> int:
        opened = os.open(self._full(path), flags, mode)
        self._open.add(opened)
        return opened

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._known.pop(path, None)
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(fh if fh in self._open else self._full(path), length)
        self._known.pop(path, None)
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        time.sleep(self._options.fsync_s)
        os.fsync(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        time.sleep(self._options.fsync_s)
        return 0

    def release(self, path: str, fh: int) -> int:
        self._open.discard(fh)
        os.close(fh)
        return 0


def main(server: str, mountpoint: str, options: str, control: str) -> None:
    chosen = WorstOptions(**json.loads(options))
    os.umask(0)
    Fuse(
        WorstFs(Path(server), chosen, Path(control)),
        mountpoint,
        foreground=True,
        fsname="worst",
        subtype="worst",
        auto_unmount=True,  # a process of libfuse's does it, when this one was killed
        use_ino=not chosen.own_inodes,
        # What is remembered here, the kernel has to ask for.
        attr_timeout=0.0 if chosen.remember_s else chosen.attr_s,
        entry_timeout=chosen.entry_s,
        negative_timeout=chosen.negative_s,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
