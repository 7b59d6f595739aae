"""What the kernel has killed because memory ran out."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OomKills:
    """How many processes the kernel has killed for memory; 0 where it does not say.

    machine: in whatever container, since the start of this machine. own: in this process's control group (version 2),
    to which the processes belong that it starts, and those below; 0 of a group without a limit of its own, such as a
    login session, in which anything else may have been killed as well.
    """

    machine: int = 0
    own: int = 0

    def __sub__(self, earlier: "OomKills") -> "OomKills":
        return OomKills(self.machine - earlier.machine, self.own - earlier.own)


def oom_kills(proc: Path = Path("/proc"), control_groups: Path = Path("/sys/fs/cgroup")) -> OomKills:
    """The counts until now. proc, control_groups: where the kernel shows them."""
    return OomKills(_count(proc / "vmstat"), _own(proc, control_groups))


def _own(proc: Path, control_groups: Path) -> int:
    # A container may show its own group as the root; that of the machine has no such file.
    group = _own_group(proc)
    if group is None:
        return 0
    folder = control_groups / group.lstrip("/")
    if not folder.is_dir():
        folder = control_groups
    with suppress(OSError):
        if (folder / "memory.max").read_text().strip() != "max":
            return _count(folder / "memory.events")
    return 0


def _own_group(proc: Path) -> str | None:
    with suppress(OSError):
        for line in (proc / "self/cgroup").read_text(errors="replace").splitlines():
            if line.startswith("0::"):
                return line.removeprefix("0::")
    return None


def _count(file: Path) -> int:
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            name, count = line.split()
            if name == "oom_kill":
                return int(count)
    return 0
