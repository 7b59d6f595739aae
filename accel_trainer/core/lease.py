"""Leases: who owns something, and when an owner counts as dead or stale.

An owner's token names one process of one space (`core.process_space`). Where this process is of the same space, it may
know whether the owner is alive; of any other owner it knows nothing but its heartbeats: an owner gives one every
`BEAT_S`, and one that was silent for `STALE_S` is stale, and its lease expired. A run folder's lock measures the
silence by the clock of the file server (`run.lock`), a queue by the observer's own clock (`queue.heartbeat`).
"""

import os
import re
import secrets
import socket
from dataclasses import dataclass
from typing import Self

from accel_trainer.core.process_space import (
    BOOT_IS_CERTAIN,
    FIRST_SPACE,
    Life,
    boot_id,
    life_of,
    machine_id,
    own_start,
    space_id,
    space_name,
)

BEAT_S = 30.0
# A network drive may show a heartbeat a minute late.
STALE_S = 600.0
HOST_VARIABLE = "ACCEL_TRAIN_HOST"
# Before the name of a cluster, in the place of a host's; no host has it in its name.
CLUSTER_PREFIX = "slurm+"


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
        parts = (space_name(), str(os.getpid()), own_start(), secrets.token_hex(4))
        return cls(this_host(), "-".join(parts))

    @property
    def is_of_this_machine(self) -> bool:
        """Whether it is or was a process of this machine: of this boot, in whatever space, or of an earlier one."""
        if self.is_of_this_boot:
            return True
        process = _Process.of(self.token)
        # Containers of one image, and machines of one image, may have one machine id.
        return bool(process.machine) and process.machine == machine_id() and self.host == this_host()

    @property
    def is_of_this_boot(self) -> bool:
        """Whether it is or was a process of this kernel, in whatever space."""
        boot = _Process.of(self.token).boot
        return bool(boot) and boot == boot_id()

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

    def life(self) -> Life:
        """What is known of the owner by its process; a cluster has none."""
        if self.cluster is not None or not boot_id():
            return Life.UNKNOWN
        process = _Process.of(self.token)
        if process.boot != boot_id():
            is_over = BOOT_IS_CERTAIN and process.boot and self.is_of_this_machine
            return Life.DEAD if is_over else Life.UNKNOWN
        return process.life() if process.space == space_id() else Life.UNKNOWN

    def is_dead(self) -> bool:
        """Whether the owner is known to be gone."""
        return self.life() is Life.DEAD

    def has_expired(self, silence_s: float) -> bool:
        """Whether the owner has lost its lease: it is dead or, where that cannot be known, was silent for too long."""
        life = self.life()
        return life is Life.DEAD or (life is Life.UNKNOWN and is_stale(silence_s))


def is_stale(silence_s: float) -> bool:
    """Whether an owner whose process cannot be seen has been silent for so long that its lease has expired."""
    return silence_s >= STALE_S


def left_s(silence_s: float) -> float:
    """Seconds until such an owner's lease expires, if it stays silent."""
    return max(0.0, STALE_S - silence_s)


def is_dead_token(token: str) -> bool:
    """Whether this is the token of a process that ran since this machine was started, and is gone.

    Of any other token nothing is known: on a shared drive it may be another machine's.
    """
    return Owner("", token).is_dead()


@dataclass(frozen=True)
class _Process:
    """What a token says of its process. Anybody may have written one; what is not there is empty."""

    machine: str
    boot: str
    space: str
    pid: str
    started: str

    @classmethod
    def of(cls, token: str) -> Self:
        """Up to version 0.2 there were no spaces, in the first ones no machines either: `<boot>-<pid>-...` and
        `<machine>_<boot>-<pid>-...`. Their processes are taken for those of a machine without containers."""
        where, pid, started, *_ = [*token.split("-"), "", "", ""]
        match where.split("_") if "-" in token else []:
            case [machine, boot, space]:
                return cls(machine, boot, space, pid, started)
            case [machine, boot]:
                return cls(machine, boot, FIRST_SPACE, pid, started)
            case [boot]:
                return cls("", boot, FIRST_SPACE, pid, started)
            case _:
                return cls("", "", "", "", "")

    def life(self) -> Life:
        """What is known of it in its own space, where no process has what is no process id."""
        return life_of(int(self.pid), self.started) if re.fullmatch(r"[1-9][0-9]{0,17}", self.pid) else Life.DEAD
