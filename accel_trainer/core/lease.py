"""Leases: who owns something, and when an owner counts as dead or stale.

An owner's token names one process of one boot of one machine, so that its death can be seen from that machine. From any
other machine nothing but its heartbeats can be seen: an owner gives one every `BEAT_S`, and one that was silent for
`STALE_S` is stale, and its lease expired. A run folder's lock measures the silence by the clock of the file server
(`run.lock`), a queue by the observer's own clock (`queue.heartbeat`).
"""

import hashlib
import os
import re
import secrets
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

BEAT_S = 30.0
# A network drive may show a heartbeat a minute late.
STALE_S = 600.0
HOST_VARIABLE = "ACCEL_TRAIN_HOST"
# Before the name of a cluster, in the place of a host's; no host has it in its name.
CLUSTER_PREFIX = "slurm+"


@cache
def machine_id() -> str:
    """A short id that distinguishes machines of the same name; empty where the system has none."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            # Hashed, as machine-id(5) asks: it is not to be shown to others.
            if secret := Path(path).read_bytes().strip():
                return hashlib.blake2b(secret, digest_size=4, person=b"accel-train").hexdigest()
    return ""


@cache
def boot_id() -> str:
    """A short id of this machine since its last start; no other machine has it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:8]
    except OSError:
        import psutil

        boot = f"{int(psutil.boot_time()):x}"
    return f"{machine_id()}_{boot}"


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's own count, or None if there is no such process.

    With the process id and the boot id this identifies one process for ever, although process ids are used again.
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
    """A process that has acquired something, or a cluster of Slurm for which it was acquired.

    The token identifies this process and this acquisition.
    """

    host: str
    token: str

    @classmethod
    def new(cls) -> Self:
        """This process, with a token that no other call gives."""
        pid = os.getpid()
        parts = (boot_id(), str(pid), start_time(pid), secrets.token_hex(4))
        return cls(this_host(), "-".join(str(part) for part in parts))

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine, where it can be seen whether that is alive."""
        machine, is_named, _ = self.token.partition("-")[0].rpartition("_")
        return self.host == this_host() and bool(self.token) and not (is_named and machine != machine_id())

    @classmethod
    def of_cluster(cls, cluster: str) -> Self:
        """A cluster of Slurm; the token is of the process that submits to it, which may end long before."""
        return cls(f"{CLUSTER_PREFIX}{as_host(cluster)}", cls.new().token)

    @property
    def cluster(self) -> str | None:
        """The name of the cluster that is the owner; None for a process of a host."""
        return self.host.removeprefix(CLUSTER_PREFIX) if self.host.startswith(CLUSTER_PREFIX) else None

    def start(self) -> Self:
        """This process as one start of a cluster's claim, which may be started many times."""
        now = type(self).new()
        return type(self)(now.host, f"{now.token}-{self.token}")

    def has_started(self, token: str) -> bool:
        """Whether an attempt with this token belongs to this claim."""
        return token == self.token or (self.cluster is not None and token.endswith(f"-{self.token}"))

    def is_dead(self) -> bool:
        """Whether the owner is known to be gone; of an owner on another machine nothing is known."""
        if not self.is_here:
            return False
        boot, pid, started, *_ = [*self.token.split("-"), "", "", ""]
        return boot != boot_id() or not re.fullmatch(r"[0-9]{1,18}", pid) or start_time(int(pid)) != started

    def has_expired(self, silence_s: float) -> bool:
        """Whether the owner has lost its lease: it is dead or, on another machine, was silent for too long."""
        return self.is_dead() if self.is_here else is_stale(silence_s)


def is_stale(silence_s: float) -> bool:
    """Whether an owner on another machine has been silent for so many seconds that its lease has expired."""
    return silence_s >= STALE_S


def is_dead_token(token: str) -> bool:
    """Whether this is the token of a process that ran since this machine was started, and is gone.

    Of any other token nothing is known: on a shared drive it may be another machine's.
    """
    return token.startswith(f"{boot_id()}-") and Owner(this_host(), token).is_dead()
