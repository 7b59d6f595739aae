"""Where files go: what kind of file system it is, whether it can be written, and what is free."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from accel_trainer.core.lease import Owner, is_dead_token
from accel_trainer.doctor.filesystem_trials import MOVE_QUEUE
from accel_trainer.doctor.findings import Finding, ok, problem, warning
from accel_trainer.doctor.hardware import GIGABYTE
from accel_trainer.doctor.race import HelperFailed, start_helper
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

RESPONSE_LIMIT_S = 10.0
PREFIX = ".doctor."
TRIAL_BYTES = 2**20
FEW_FILES = 10_000
# Of the options of a network drive: how long a folder may be remembered, in seconds.
LONG_CACHE_S = 60

# What is known of kinds of file systems that hold no queue well: how grave it is, and why.
UNFIT = {
    **dict.fromkeys(
        ("fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "fuse.mount-s3", "fuse.blobfuse", "fuse.blobfuse2"),
        "a store of objects, where a rename copies: two runners can get one job",
    ),
    **dict.fromkeys(("squashfs", "iso9660", "erofs"), "can only be read"),
}
DOUBTFUL = {
    **dict.fromkeys(("tmpfs", "ramfs"), "memory: all that is here is gone when the machine is switched off"),
    "overlay": "a container's own layer: all that is here goes with the container",
    "aufs": "a container's own layer: all that is here goes with the container",
    **dict.fromkeys(
        ("vfat", "msdos", "exfat", "fuseblk"), "made for other systems: names and time stamps are not kept"
    ),
    **dict.fromkeys(("cifs", "smb3", "smbfs"), "an SMB share: the trials below count for this machine alone"),
    "fuse.sshfs": "sshfs remembers what is there: other machines' changes are seen late",
    **dict.fromkeys(("9p", "drvfs", "vboxsf", "vmhgfs", "fuse.vmhgfs-fuse"), "a folder of the host of this machine"),
}
NETWORK = ("nfs", "nfs4")


def responds(queue: Path) -> Finding:
    """Whether the file system says anything at all: on a network drive whose server is gone, every call waits."""

    def look(connection: Connection) -> None:
        existing = existing_part(queue)
        if is_folder := existing.is_dir():
            os.listdir(existing)  # noqa: PTH208 - only whether it comes back
        connection.send((str(existing), is_folder, existing == queue))

    try:
        with start_helper(look) as other:
            existing, is_folder, is_there = other.receive(RESPONSE_LIMIT_S)
    except HelperFailed as error:
        return problem(f"{queue}: {error}", "is the file server there? `df` tells which drive does not answer")
    if not is_folder:
        return problem(f"{existing} is not a folder", "name another folder with --queue")
    if not is_there:
        return ok(f"{queue} is not there yet; what is said below is of {existing}")
    return ok(str(queue))


def existing_part(path: Path) -> Path:
    """The nearest folder above, or the path itself, that is there."""
    absolute = path.expanduser().absolute()
    there = next(part for part in (absolute, *absolute.parents) if os.path.lexists(part))
    return path if there == absolute else there


def folders(queue: Path) -> Finding:
    """A change of state is a rename, which cannot lead to another file system."""
    store = QueueStore(queue)
    inside = [store.paths.of(state) for state in JobState if state is not JobState.PENDING]
    there = [folder for folder in inside if os.path.lexists(folder)]
    for folder in there:
        mode = folder.lstat().st_mode
        if stat.S_ISLNK(mode):
            return problem(f"{folder} is a symbolic link", "make it a folder (that of the whole queue may be a link)")
        if not stat.S_ISDIR(mode):
            return problem(f"{folder} is not a folder", "move it away")
        if folder.stat().st_dev != queue.stat().st_dev:
            return problem(f"{folder} is on another file system than {queue}", "make it a folder of the same one")
    for folder in (queue, *there):
        if not os.access(folder, os.W_OK | os.X_OK):
            return problem(f"no permission to write in {folder}", f"chmod u+rwx {folder}, or ask whose it is")
    return ok(f"{len(there)} of {len(inside)} are there" if len(there) < len(inside) else "all on one file system")


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
    """The one that a folder is in: the last of those with the longest path to it."""
    place = folder.resolve()
    around = [mount for mount in mounts if place.is_relative_to(mount.point)]
    return max(enumerate(around), key=lambda pair: (len(pair[1].point), pair[0]))[1] if around else None


def all_mounts() -> list[Mount]:
    import psutil

    found = psutil.disk_partitions(all=True)
    return [Mount(part.mountpoint, part.fstype, tuple(part.opts.split(","))) for part in found]


def file_system(folder: Path) -> Finding:
    mount = mount_of(folder, all_mounts())
    return ok("of a kind that this system does not tell") if mount is None else assess_mount(mount)


def assess_mount(mount: Mount) -> Finding:
    said = f"{mount.kind}, mounted at {mount.point}"
    if mount.option("ro") is not None:
        return problem(f"{said}: read-only", "mount it for writing, or name another folder with --queue")
    if (why := UNFIT.get(mount.kind)) is not None:
        return problem(f"{said}: {why}", MOVE_QUEUE)
    if mount.kind in NETWORK:
        return _assess_network_mount(mount, said)
    if (why := DOUBTFUL.get(mount.kind)) is not None:
        return warning(f"{said}: {why}", MOVE_QUEUE)
    return ok(said)


def _assess_network_mount(mount: Mount, said: str) -> Finding:
    if mount.option("soft") is not None:
        return problem(
            f"{said}: a soft mount: when the server is slow, writes fail, and a rename may come later than its error",
            "mount it with `hard` instead of `soft`",
        )
    named = ("actimeo", "acdirmax")
    seconds = [int(value) for value in map(mount.option, named) if value is not None and value.isdigit()]
    if seconds and max(seconds) > LONG_CACHE_S:
        return warning(
            f"{said}: what is in a folder is remembered for up to {max(seconds)} s: others' changes are seen late",
            "mount it without actimeo, or with actimeo=10",
        )
    notes = [option for option in ("noac", "nolock", "sync") if mount.option(option) is not None]
    notes += [f"{name}={value}" for name in (*named, "local_lock") if (value := mount.option(name)) is not None]
    return ok(f"{said} ({', '.join(['hard', *notes])})" if notes else f"{said} (hard)")


# -- scratch and space ----------------------------------------------------------------------------------------------


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder for trials, which goes at the exit; those of doctors that were killed go too. Raises OSError."""
    _remove_abandoned(parent)
    folder = parent / f"{PREFIX}{Owner.new().token}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{PREFIX}*"):
        if is_dead_token(folder.name.removeprefix(PREFIX)):
            shutil.rmtree(folder, ignore_errors=True)


def space(path: Path, wanted_gb: float) -> Finding:
    """Whether a little can be written where a folder is or will be, and whether much could."""
    place = existing_part(path)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return problem(f"{place} cannot be written: {error.strerror}", "make room, mend permissions, or go elsewhere")
    about = os.statvfs(place)
    free = about.f_bavail * about.f_frsize / GIGABYTE
    said = f"{place}: {free:,.1f} GB free"
    if free < wanted_gb:
        return warning(f"{said}, little for what goes there", "make room")
    if about.f_files and about.f_favail < FEW_FILES:
        return warning(f"{said}, but for {about.f_favail:,} files only", "remove files, however small")
    return ok(said)


def temporary(wanted_gb: float) -> Finding:
    """Python silently takes another folder where the one that is named cannot be used."""
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError:
        return problem("there is no folder for temporary files that can be written", "set TMPDIR to one")
    named = os.environ.get("TMPDIR")
    if named and Path(named).absolute() != Path(place).absolute():
        return warning(f"TMPDIR={named!r} cannot be used; {place} is", "make the folder, or unset TMPDIR")
    return space(Path(place), wanted_gb)
