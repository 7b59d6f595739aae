"""What a container, or a batch system, leaves of a machine: its control groups' limits of CPU time, memory and threads.

Control groups are nested: what a group further up allows is a limit for all below. Read are those of this process, of
version 1 and 2 (Linux: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst), where its mounts show them.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Version 1 has a number of bytes of that order where there is no limit.
UNLIMITED = 2**60
# Of this process, as the kernel lists them.
MEMBERSHIP, MOUNTS = Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class _Group:
    """A control group that this process is in: its folder, and of which version it is."""

    folder: Path
    version: int

    def words(self, name: str) -> list[str]:
        """What is in one of its files; nothing where there is none."""
        try:
            return (self.folder / name).read_text().split()
        except (OSError, ValueError):
            return []

    def number(self, name: str) -> int | None:
        """The number that is in one of its files; None for `max`, and where there is none."""
        words = self.words(name)
        return int(words[0]) if len(words) == 1 and re.fullmatch(r"-?[0-9]{1,20}", words[0]) else None

    def counter(self, name: str, key: str) -> int:
        """One of the counters that a file lists, a line each; 0 where it is not there."""
        words = self.words(name)
        found = dict(zip(words[::2], words[1::2], strict=False)).get(key, "")
        return int(found) if re.fullmatch(r"[0-9]{1,20}", found) else 0


def cpu_quota() -> float | None:
    """The CPU time that this process's groups may use, in cores; None where it is not limited."""
    return min((quota for group in _groups("cpu") if (quota := _quota(group)) is not None), default=None)


def _quota(group: _Group) -> float | None:
    if group.version == 2:
        words = group.words("cpu.max")
        if len(words) != 2 or not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words):
            return None
        given, period = map(int, words)
    else:
        given, period = group.number("cpu.cfs_quota_us") or 0, group.number("cpu.cfs_period_us") or 0
    return given / period if given > 0 and period > 0 else None


def memory_limit() -> int | None:
    """Bytes that this process's groups may have together; None where that is not limited."""
    return min((limit for group in _groups("memory") if (limit := _limit(group)) is not None), default=None)


def available_memory() -> int:
    """Bytes that processes here can still get without another's being moved out: of the machine, and of each group.

    A group's cache of files that were not read lately is given back where memory is wanted, and counts as available.
    """
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *_free_of_groups()]))


def _free_of_groups() -> Iterator[int]:
    for group in _groups("memory"):
        if (limit := _limit(group)) is not None:
            of_version_2 = group.version == 2
            used = group.number("memory.current" if of_version_2 else "memory.usage_in_bytes") or 0
            cached = group.counter("memory.stat", "inactive_file" if of_version_2 else "total_inactive_file")
            yield limit - max(0, used - cached)


def _limit(group: _Group) -> int | None:
    if group.version == 1:
        limit = group.number("memory.limit_in_bytes")
        return limit if limit is not None and limit < UNLIMITED else None
    limits = (group.number(name) for name in ("memory.max", "memory.high"))  # above `high` it is slowed down
    return min((limit for limit in limits if limit is not None), default=None)


def tasks_left() -> int | None:
    """How many threads more this process's groups may have; None where that is not limited."""
    left = []
    for group in _groups("pids"):
        if (limit := group.number("pids.max")) is not None:
            left.append(max(0, limit - (group.number("pids.current") or 0)))
    return min(left, default=None)


def _groups(controller: str) -> Iterator[_Group]:
    """The groups of this process that have a controller, from its own up to the one that is mounted."""
    for version, path in _memberships(controller):
        for root, mount in _mounts(controller, version):
            inside = _below(path, root)
            for part in [inside, *inside.parents]:
                yield _Group(mount / part, version)


def _below(path: str, root: str) -> Path:
    """A group's path as seen from the root of a mount; of one that is outside nothing but the mount can be seen."""
    relative = os.path.relpath(path, root)
    return Path() if relative.startswith("..") or path.startswith("/..") else Path(relative)


def _memberships(controller: str) -> Iterator[tuple[int, str]]:
    """(version, path) of each hierarchy that has, or may have, a controller."""
    for line in _lines(MEMBERSHIP):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield 2, path
        elif controller in controllers.split(","):
            yield 1, path


def _mounts(controller: str, version: int) -> Iterator[tuple[str, Path]]:
    """(root, folder) of the mounts of a hierarchy: which of its groups the folder shows."""
    for line in _lines(MOUNTS):
        mount, _, kind = line.partition(" - ")
        fields, kinds = mount.split(" "), kind.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        is_it = kinds[0] == "cgroup2" if version == 2 else kinds[0] == "cgroup" and controller in kinds[2].split(",")
        if is_it:
            yield _unescaped(fields[3]), Path(_unescaped(fields[4]))


def _unescaped(path: str) -> str:
    """A path of the list of mounts, in which blanks and the like are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def whole_cores(quota: float) -> int:
    """How many threads a quota keeps running: with more of them than that, all stand still for a part of the time."""
    return max(1, math.floor(quota + 0.01))


def slurm_cores() -> int | None:
    """The cores that Slurm has given this process's task, or its job on this node; None outside of Slurm's jobs."""
    names = ["SLURM_CPUS_ON_NODE"]  # a job's script has all of them, whatever a task has
    if "SLURM_STEP_ID" in os.environ:
        names.insert(0, "SLURM_CPUS_PER_TASK")
    given = (os.environ.get(name, "") for name in names if "SLURM_JOB_ID" in os.environ)
    return next((int(text) for text in given if re.fullmatch(r"[1-9][0-9]{0,5}", text)), None)
