"""A machine of its own on this machine, for the real command line.

    with machine("grey", {one.folder: shared}) as grey, machine("rey", {other.folder: shared}) as rey:
        done = grey.run("run-queue", cwd=shared)      # accel-train, as `subprocess.run` gives it
        runner = rey.start("run-queue", cwd=shared)   # ... as a process with `stdout`
        rey.kill()                                    # as by a power cut

It has its own host name, machine id, boot id and processes, and its own mounts: what is mounted later outside, it does
not see. With `shares`, folders have other paths there: several machines see their clients of one server at one path,
as in a lab; the paths have to be there.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers import COMMAND

from accel_trainer.core.processes import parent_death_signal

OWN = ("--pid", "--uts", "--mount")
MACHINE_ID, BOOT_ID = Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id")
# The first process of the machine; the words are its name, its two ids, and pairs of folders.
BOOT = f"""
set -e
hostname "$1"
[ ! -e {MACHINE_ID} ] || mount --bind "$2" {MACHINE_ID}
mount --bind "$3" {BOOT_ID}
shift 3
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
echo up
exec sleep infinity
"""


def why_no_machine() -> str | None:
    """What keeps us from a machine of its own; None if nothing does."""
    missing = [name for name in ("unshare", "nsenter", "hostname") if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "--uts", "true"], capture_output=True)
    return f"no namespaces: {tried.stderr.decode(errors='replace').strip()}" if tried.returncode else None


@dataclass
class Machine:
    """Runs commands in its namespaces."""

    name: str
    pid: int
    _keeper: "subprocess.Popen[bytes]"
    _started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def start(
        self, *words: str | Path, cwd: Path, command: Sequence[str] = COMMAND, **environment: str
    ) -> "subprocess.Popen[str]":
        """Start accel-train there, or another command; what it and its children print comes by `stdout`."""
        process = subprocess.Popen(
            [*self.entering(cwd), *command, *map(str, words)],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *words: str | Path, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run accel-train there to its end; both streams are in `stdout`."""
        process = self.start(*words, cwd=cwd, **environment)
        output, _ = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def entering(self, cwd: Path) -> list[str]:
        """What comes before the words of any command that shall run there."""
        # The shell's change of folder, since nsenter opens the folder out here.
        shell = ["sh", "-c", 'cd "$0" && exec "$@"', str(cwd)]
        return ["nsenter", "--target", str(self.pid), *OWN, "--", *shell]

    def terminate_all(self) -> None:
        """Ask all its processes to end, as a machine does that is shut down."""
        subprocess.run([*self.entering(Path("/")), "kill", "-TERM", "--", "-1"], check=True)

    def kill(self) -> None:
        """End all its processes at once."""
        self._keeper.kill()  # by --kill-child the first process follows, by the kernel all others
        self._keeper.wait()
        for process in self._started:
            process.wait()


@contextmanager
def machine(name: str, shares: Mapping[Path, Path] | None = None) -> Iterator[Machine]:
    """A machine with this host name, on until the body ends. shares: folders, and what path each has there."""
    folder = Path(tempfile.mkdtemp(prefix="at-machine-", dir="/tmp"))
    ids = {"machine-id": uuid.uuid4().hex, "boot-id": str(uuid.uuid4())}
    for file, text in ids.items():
        (folder / file).write_text(f"{text}\n")
    words = [name, *(str(folder / file) for file in ids)]
    words += [str(path) for pair in (shares or {}).items() for path in pair]
    keeper = subprocess.Popen(
        ["unshare", *OWN, "--fork", "--mount-proc", "--kill-child=SIGKILL", "sh", "-c", BOOT, "sh", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=parent_death_signal(signal.SIGKILL),
    )
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"up\n", f"{name} did not start"
        yield (started := Machine(name, _first_process(keeper.pid), keeper))
        started.kill()
    finally:
        keeper.kill()
        keeper.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _first_process(keeper: int) -> int:
    (first,) = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return int(first)
