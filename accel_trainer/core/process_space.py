"""What this process can know of others by their ids: in which space an id means one process, and whether that is alive.

A process id means something in one PID namespace of one boot of one kernel, its start time in one time namespace: that
is a space. Two containers of one machine are two spaces, whatever their host names and machine ids, and neither sees
the other's processes. In a space of our own, a process is known to be dead if the kernel says that there is none of the
id (ESRCH), or if the start time of the one that is there could be read, and is another. Anything else is no evidence:
/proc may hide it (hidepid), may not be mounted, or show the processes of another space.
"""

import hashlib
import os
import secrets
import sys
from contextlib import suppress
from enum import Enum, auto
from functools import cache
from pathlib import Path

PROC = Path("/proc")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
# The kernel's numbers of the namespaces that it begins with; it counts the others up from a bit above.
FIRST_PID_SPACE, FIRST_TIME_SPACE = 0xEFFFFFFC, 0xEFFFFFFA
# The space of a machine without containers.
FIRST_SPACE = "0"
# Elsewhere it is the time of the start, which is another one when the clock is set.
BOOT_IS_CERTAIN = sys.platform == "linux"
# Stands for a start time that its own process could not read.
NOT_KNOWN = "0"


class Life(Enum):
    """What is known of a process; of one that is UNKNOWN only a heartbeat can tell."""

    ALIVE = auto()
    DEAD = auto()
    UNKNOWN = auto()


@cache
def machine_id() -> str:
    """A short id that distinguishes machines of the same name; empty where the system has none. It is the same after a
    restart; containers of one image may have the same one."""
    for path in MACHINE_IDS:
        with suppress(OSError):
            # Hashed, as machine-id(5) asks: it is not to be shown to others.
            if secret := path.read_bytes().strip():
                return hashlib.blake2b(secret, digest_size=4, person=b"accel-train").hexdigest()
    return ""


@cache
def boot_id() -> str:
    """A short id of this machine since its last start; no other machine has it. Empty where it cannot be read."""
    if not BOOT_IS_CERTAIN:
        import psutil

        return f"{int(psutil.boot_time()):x}"
    with suppress(OSError):
        return BOOT_ID.read_text().strip().replace("-", "")[:8]
    return ""


@cache
def space_id() -> str:
    """A short id of the space of this process, among those of its boot. Where it cannot be read, no other process has
    the same: nothing is known of any other, nor of this one by others."""
    if sys.platform != "linux":
        return FIRST_SPACE
    try:
        pids = _namespace("pid") - FIRST_PID_SPACE
    except OSError:
        return f"x{secrets.token_hex(4)}"
    try:
        time = _namespace("time") - FIRST_TIME_SPACE
    except OSError:  # an older kernel has none
        time = 0
    return f"{pids:x}" if time == 0 else f"{pids:x}t{time:x}"


def space_name() -> str:
    """How the tokens of all processes of this space begin: with its machine, boot and id."""
    return f"{machine_id()}_{boot_id()}_{space_id()}"


def _namespace(kind: str) -> int:
    """The number of a namespace of this process. Raises OSError."""
    return (PROC / "self/ns" / kind).stat().st_ino


@cache
def own_start() -> str:
    """When this process started, as `start_time` has it; `NOT_KNOWN` where that cannot be read."""
    if sys.platform != "linux":
        return start_time(os.getpid()) or NOT_KNOWN
    with suppress(OSError):  # under this name, it is found in any /proc
        return _started((PROC / "self/stat").read_text()) or NOT_KNOWN
    return NOT_KNOWN


@cache
def _sees_own_space() -> bool:
    """Whether /proc shows the processes of this space, and not those of another PID namespace."""
    with suppress(OSError, ValueError):
        return int((PROC / "self").readlink().name) == os.getpid()
    return False


def forget() -> None:
    """Read all of this process's own anew: it is the child of a fork, which may be in another namespace."""
    for known in (space_id, own_start, _sees_own_space):
        known.cache_clear()


os.register_at_fork(after_in_child=forget)


def sees_processes() -> bool:
    """Whether ids that are found among the processes of this system are ids of this space."""
    return sys.platform != "linux" or _sees_own_space()


def start_time(pid: int) -> str | None:
    """When the process started that has this id now, in the kernel's own count; empty of one that has ended. None where
    that cannot be read, whether there is such a process or not.

    With the id and the space this identifies one process for ever, although ids are used again.
    """
    if sys.platform != "linux":
        return _asked_of_psutil(pid)
    if not _sees_own_space():
        return None
    try:
        return _started((PROC / str(pid) / "stat").read_text())
    except OSError:
        return None


def _started(stat: str) -> str:
    """From the content of /proc/<pid>/stat."""
    after_name = stat.rpartition(")")[2].split()
    state, ticks = after_name[0], after_name[19]
    return "" if state in "ZX" else ticks


def _asked_of_psutil(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(int(process.create_time()))
    except psutil.Error:
        return None


def life_of(pid: int, started: str) -> Life:
    """What is known of the process of this space that had an id, and was started then."""
    if (now := start_time(pid)) == "":
        return Life.DEAD
    if now is not None and started != NOT_KNOWN:
        return Life.ALIVE if now == started else Life.DEAD
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return Life.DEAD
    except PermissionError:
        pass  # somebody else's, which is there
    is_own = pid == os.getpid() and started == own_start()
    return Life.ALIVE if is_own else Life.UNKNOWN
