"""Processes that must not outlive what they work for, and how to find and name them."""

import ctypes
import hashlib
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

_PR_SET_PDEATHSIG = 1
HOST_VARIABLE = "ACCEL_TRAIN_HOST"
# How many cores a job may take that is not alone on its machine.
CORES_VARIABLE = "ACCEL_TRAIN_CORES"
# At this signal a training process writes to its standard error what each of its threads is doing.
STACKS_SIGNAL = signal.SIGUSR1
# Before the name of a cluster, where a host's would stand; no host has it in its name.
CLUSTER_PREFIX = "slurm+"


class StopRequest:
    """SIGTERM and the like: whoever works finishes the step, saves and leaves. The handler only takes note.

    A signal that the parent has said to ignore, as nohup does with SIGHUP, stays ignored.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_urgent = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def listen(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def note(self, number: int) -> None:
        """A first request, or one that makes it urgent."""
        self.is_urgent = self.signal is not None
        self.signal = self.signal or number

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.note(number)


@cache
def asked_to_stop() -> StopRequest:
    """Whether a trainer was told to stop since this was first called."""
    stop = StopRequest()
    stop.listen(signal.SIGTERM, signal.SIGINT)
    return stop


def parent_death_signal(signal_number: int = signal.SIGTERM) -> Callable[[], None]:
    """A function that asks the kernel to send this process a signal when its parent dies, however it dies.

    What needs loading is loaded now: the function may run between fork and exec. Linux only; elsewhere it does
    nothing (see `die_with_parent`).
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal_number)


def die_with_parent(grace_s: float = 120.0) -> None:
    """Be sent SIGTERM when the parent process dies. Where the kernel does not see to it, a thread does.

    Who does not end within the grace, as one that hangs does not, is killed: nobody else would.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        parent_death_signal()()
    threading.Thread(target=_watch, args=(parent, grace_s), daemon=True).start()


def _watch(parent: int, grace_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


def with_variable(name: str, value: str) -> list[int]:
    """Ids of this user's processes that have an environment variable of this value, but for our own.

    Children inherit the variable: so this finds all that a launcher has left behind, sessions, groups and
    parents notwithstanding.
    """
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return [pid for pid in found if pid != os.getpid()]


def variable(pid: int, name: str) -> str | None:
    """An environment variable of another process of this user."""
    import psutil

    with suppress(psutil.Error, OSError):
        return psutil.Process(pid).environ().get(name)
    return None


def usable_cores() -> int:
    """The cores that this process may run on; its share of them, where several jobs train side by side."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get(CORES_VARIABLE, "")
    return min(cores, max(1, int(share))) if re.fullmatch(r"[0-9]{1,6}", share) else cores


def children() -> set[int]:
    """Ids of the processes that this one has started, and not waited for yet."""
    import psutil

    with suppress(psutil.Error, OSError):
        return {child.pid for child in psutil.Process().children()}
    return set()


def has_living_child(name: str) -> bool:
    """Whether a program of this name runs that this process has started."""
    import psutil

    for pid in children():
        with suppress(psutil.Error):
            child = psutil.Process(pid)
            if child.name() == name and child.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def reap_when_dead(pid: int) -> None:
    """Wait, aside, for the end of a child that nobody else waits for in time: else it stays as a zombie."""

    def wait() -> None:
        with suppress(ChildProcessError):  # somebody else did
            os.waitpid(pid, 0)

    threading.Thread(target=wait, daemon=True).start()


def send_signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


@cache
def machine_id() -> str:
    """A short word that tells machines of the same name apart; empty where the system has given none."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            # Hashed, as machine-id(5) asks: it is not to be shown to others.
            if word := Path(path).read_bytes().strip():
                return hashlib.blake2b(word, digest_size=4, person=b"accel-train").hexdigest()
    return ""


@cache
def boot_id() -> str:
    """A short word that is another one after every start of this machine, and no other machine's."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:8]
    except OSError:
        import psutil

        boot = f"{int(psutil.boot_time()):x}"
    return f"{machine_id()}_{boot}"


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's own count, or None if there is no such process.

    With the process id and the boot id this names one process for ever: ids are given out again, this is not.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if sys.platform == "linux":
            return None
        import psutil

        try:
            return str(int(psutil.Process(pid).create_time()))
        except psutil.Error:
            return None
    state, ticks = after_name[0], after_name[19]
    return None if state in "ZX" else ticks


def this_host() -> str:
    """This machine's name, as it stands in claims."""
    return as_host(os.environ.get(HOST_VARIABLE) or socket.gethostname())


def as_host(name: str) -> str:
    """A name as it may stand in a claim."""
    return re.sub(r"[^\w.-]", "_", name)[:64]


@dataclass(frozen=True)
class Owner:
    """A process that has taken something for itself, or a cluster for which it was taken. Its token names this very
    process and this very taking."""

    host: str
    token: str

    @classmethod
    def new(cls) -> Self:
        pid = os.getpid()
        parts = (boot_id(), str(pid), start_time(pid), secrets.token_hex(4))
        return cls(this_host(), "-".join(str(part) for part in parts))

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this very machine, of which is known whether it lives."""
        machine, is_named, _ = self.token.partition("-")[0].rpartition("_")
        return self.host == this_host() and bool(self.token) and not (is_named and machine != machine_id())

    @classmethod
    def of_cluster(cls, cluster: str) -> Self:
        """A cluster of Slurm; the token is that of the process which hands over to it, and may end long before."""
        return cls(f"{CLUSTER_PREFIX}{as_host(cluster)}", cls.new().token)

    @property
    def cluster(self) -> str | None:
        """The name of the cluster that is the owner; None for a process of a host."""
        return self.host.removeprefix(CLUSTER_PREFIX) if self.host.startswith(CLUSTER_PREFIX) else None

    def start(self) -> Self:
        """This process as one start of a claim that is a cluster's, which may be started many times."""
        now = type(self).new()
        return type(self)(now.host, f"{now.token}-{self.token}")

    def has_started(self, token: str) -> bool:
        """Whether an attempt of this token is one at this claim."""
        return token == self.token or (self.cluster is not None and token.endswith(f"-{self.token}"))

    def is_dead(self) -> bool:
        """Whether the owner is known to be gone; of another machine's nothing is known."""
        if not self.is_here:
            return False
        boot, pid, started, *_ = [*self.token.split("-"), "", "", ""]
        return boot != boot_id() or not re.fullmatch(r"[0-9]{1,18}", pid) or start_time(int(pid)) != started


def died_here(token: str) -> bool:
    """Whether this is the token of a process that has run since this machine was started, and is gone. Of any other
    token nothing is known: on a shared drive it may be another machine's."""
    return token.startswith(f"{boot_id()}-") and Owner(this_host(), token).is_dead()


def leave(code: int) -> NoReturn:
    """End at once: threads of libraries must not keep a process alive that is done, nor may a disk that is full."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def killed_for_memory() -> int:
    """How many processes the kernel has killed since the start of this machine because memory ran out, in whatever
    container; 0 where it does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, count = line.split()
            if name == "oom_kill":
                return int(count)
    return 0
