"""Where files are written: the kind of file system, whether it can be written, and free space."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from accel_trainer.core.files import expand_home
from accel_trainer.core.lease import Owner, is_dead_token
from accel_trainer.core.rename import is_own_there
from accel_trainer.doctor.feature_trials import MOVE_QUEUE
from accel_trainer.doctor.findings import Finding, ok, problem, warning
from accel_trainer.doctor.hardware import GIGABYTE
from accel_trainer.doctor.race import HelperFailed, start_helper
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

RESPONSE_LIMIT_S = 10.0
PREFIX = ".doctor."
TRIAL_BYTES = 2**20
FEW_FILES = 10_000
# Of a network drive: how long the content of a folder may be cached, in seconds.
LONG_CACHE_S = 60

# Kinds of file systems that cannot hold a queue, and those that may not, each with the reason.
UNFIT = {
    **dict.fromkeys(
        ("fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "fuse.mount-s3", "fuse.blobfuse", "fuse.blobfuse2"),
        "an object store, where a rename copies: two runners can get one job",
    ),
    **dict.fromkeys(("squashfs", "iso9660", "erofs"), "can only be read"),
}
DOUBTFUL = {
    **dict.fromkeys(("tmpfs", "ramfs"), "memory: all files are lost when the machine is switched off"),
    "overlay": "a container's own layer: all files are lost with the container",
    "aufs": "a container's own layer: all files are lost with the container",
    **dict.fromkeys(
        ("vfat", "msdos", "exfat", "fuseblk"), "made for other systems: names and time stamps are not kept"
    ),
    **dict.fromkeys(("cifs", "smb3", "smbfs"), "an SMB share: the trials below count for this machine alone"),
    "fuse.sshfs": "sshfs caches folders, for 20 s without options: changes by other machines are seen late",
    **dict.fromkeys(("9p", "drvfs", "vboxsf", "vmhgfs", "fuse.vmhgfs-fuse"), "a folder of the host of this machine"),
}
NETWORK = ("nfs", "nfs4")
# What helps where that is more than another place.
_TWO_CLIENTS = "`accel-train doctor --with PATH`, of a second mount of the folder, measures that"
HELP = {
    "fuse.sshfs": f"mount it with `-o dir_cache=no,attr_timeout=0,entry_timeout=0,reconnect`; {_TWO_CLIENTS} "
    "(docs/machines.md)",
    **dict.fromkeys(("cifs", "smb3", "smbfs"), f"mount it with `actimeo=1`; {_TWO_CLIENTS} (docs/machines.md)"),
}


def responds(queue: Path) -> Finding:
    """Whether the file system responds: on a network drive whose server is gone, every call blocks."""

    def look(connection: Connection) -> None:
        existing = existing_part(queue)
        if is_folder := existing.is_dir():
            os.listdir(existing)  # noqa: PTH208 - only whether it returns
        connection.send((str(existing), is_folder, existing == queue))

    try:
        with start_helper(look) as other:
            existing, is_folder, is_there = other.receive(RESPONSE_LIMIT_S)
    except HelperFailed as error:
        return problem(f"{queue}: {error}", "check the file server; `df` shows which drive does not answer")
    if not is_folder:
        return problem(f"{existing} is not a folder", "give another folder as `queue`")
    if not is_there:
        return ok(f"{queue} does not exist yet; the checks below are of {existing}")
    return ok(str(queue))


def existing_part(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    absolute = expand_home(path).absolute()
    nearest = next(part for part in (absolute, *absolute.parents) if os.path.lexists(part))
    return path if nearest == absolute else nearest


def folders(queue: Path) -> Finding:
    """Whether the folders of all states are on one file system: a change of state is a rename."""
    store = QueueStore(queue)
    inside = [store.paths.of(state) for state in JobState if state is not JobState.PENDING]
    existing = [folder for folder in inside if os.path.lexists(folder)]
    for folder in existing:
        mode = folder.lstat().st_mode
        if stat.S_ISLNK(mode):
            return problem(f"{folder} is a symbolic link", "make it a folder (that of the whole queue may be a link)")
        if not stat.S_ISDIR(mode):
            return problem(f"{folder} is not a folder", "move it away")
        if folder.stat().st_dev != queue.stat().st_dev:
            return problem(
                f"{folder} is on another file system than {queue}", "make it a folder of the same file system"
            )
    for folder in (queue, *existing):
        if not os.access(folder, os.W_OK | os.X_OK):
            return problem(f"no permission to write in {folder}", f"chmod u+rwx {folder}, or ask its owner")
    return ok(f"{len(existing)} of {len(inside)} exist" if len(existing) < len(inside) else "all on one file system")


# -- what kind ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mount:
    """A file system where it is mounted, with its options."""

    point: str
    kind: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """The value of an option, '' if it has none; None where it is not set."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def mount_of(folder: Path, mounts: list[Mount]) -> Mount | None:
    """The mount that a folder is in: the last of those with the longest path to it; None if unknown."""
    path = folder.resolve()
    around = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(enumerate(around), key=lambda pair: (len(pair[1].point), pair[0]))[1] if around else None


def all_mounts() -> list[Mount]:
    """All mounted file systems, in the order in which they were mounted."""
    import psutil

    found = psutil.disk_partitions(all=True)
    return [Mount(part.mountpoint, part.fstype, tuple(part.opts.split(","))) for part in found]


def file_system(folder: Path) -> Finding:
    """Whether the file system that a folder is in can hold a queue."""
    mount = mount_of(folder, all_mounts())
    return ok("of unknown kind") if mount is None else assess_mount(mount)


def assess_mount(mount: Mount) -> Finding:
    """Whether a mounted file system can hold a queue, by its kind and options."""
    summary = f"{mount.kind}, mounted at {mount.point}"
    if mount.option("ro") is not None:
        return problem(f"{summary}: read-only", "mount it for writing, or give another folder as `queue`")
    if (why := UNFIT.get(mount.kind)) is not None:
        return problem(f"{summary}: {why}", MOVE_QUEUE)
    if mount.kind in NETWORK:
        return _assess_network_mount(mount, summary)
    if (why := DOUBTFUL.get(mount.kind)) is not None:
        return warning(f"{summary}: {why}", HELP.get(mount.kind, MOVE_QUEUE))
    return ok(summary)


def _assess_network_mount(mount: Mount, summary: str) -> Finding:
    if mount.option("soft") is not None:
        return problem(
            f"{summary}: a soft mount: with a slow server writes fail, and a rename may happen after its error",
            "mount it with `hard` instead of `soft`",
        )
    named = ("actimeo", "acdirmax")
    seconds = [int(value) for value in map(mount.option, named) if value is not None and value.isdigit()]
    if seconds and max(seconds) > LONG_CACHE_S:
        return warning(
            f"{summary}: folders are cached for up to {max(seconds)} s: changes elsewhere are seen late",
            "mount it without actimeo, or with actimeo=10 (docs/machines.md)",
        )
    if mount.option("nocto") is not None:
        return warning(
            f"{summary}: nocto: what other machines have changed may be seen a minute later, or not until then",
            "mount it without nocto (docs/machines.md)",
        )
    notes = [option for option in ("noac", "nolock", "sync") if mount.option(option) is not None]
    notes += [
        f"{name}={value}" for name in (*named, "lookupcache", "local_lock") if (value := mount.option(name)) is not None
    ]
    return ok(f"{summary} ({', '.join(['hard', *notes])})" if notes else f"{summary} (hard)")


# -- scratch and space ----------------------------------------------------------------------------------------------


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder for trials, removed at the exit, as are those of killed processes. Raises OSError."""
    _remove_abandoned(parent)
    folder = parent / f"{PREFIX}{Owner.new().token}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove it with all that is in it, also what a client of a network drive lists and believes missing."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        for inside, folders, files in os.walk(folder):
            for name in (*folders, *files):
                is_own_there(Path(inside, name))
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        if is_dead_token(folder.name.removeprefix(PREFIX)):
            _remove(folder)


def space(path: Path, wanted_gb: float) -> Finding:
    """Whether a folder, or the one that it will be created in, can be written and has `wanted_gb` GB free."""
    folder = existing_part(path)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return problem(
            f"{folder} cannot be written: {error.strerror}", "free space, fix its permissions, or use another folder"
        )
    about = os.statvfs(folder)
    free = about.f_bavail * about.f_frsize / GIGABYTE
    summary = f"{folder}: {free:,.1f} GB free"
    if free < wanted_gb:
        return warning(f"{summary}, little for what is written there", "free space")
    if about.f_files and about.f_favail < FEW_FILES:
        return warning(f"{summary}, but for only {about.f_favail:,} files", "remove files, of any size")
    return ok(summary)


def temporary(wanted_gb: float) -> Finding:
    """The folder for temporary files. Python silently uses another one if TMPDIR cannot be used."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        return problem("no folder for temporary files can be written", "set TMPDIR to one that can")
    named = os.environ.get("TMPDIR")
    if named and Path(named).absolute() != Path(folder).absolute():
        return warning(f"TMPDIR={named!r} cannot be used; {folder} is used", "create the folder, or unset TMPDIR")
    return space(Path(folder), wanted_gb)
