"""Folders as machines share them, on this machine: by `worst_fs`, which misbehaves on command, and by a real sshfs.

    with server_folder() as server, worst_fs(server, "one", attr_s=30) as one, worst_fs(server, "other") as other:
        ...                       # one.folder and other.folder are two clients' views of server.path
        one.obey(error="EIO", ops=["rename"], rate=0.1)
        one.obey()                # well again

    with sshd() as ssh, ssh.mount("one") as one, ssh.mount("other") as other: ...

Tests take the fixtures of network/fixtures.py, which know where this is possible. What is mounted goes with its body;
where the test process is killed, the mount's process dies, and its mount with it.
"""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers import wait_until
from network.worst_fs import WorstOptions

from accel_trainer.core.processes import parent_death_signal

PROGRAM = Path(__file__).parent / "worst_fs.py"
SSHD_CONFIGURATION = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
Subsystem sftp internal-sftp
"""


def why_no_fuse() -> str | None:
    """What keeps us from `worst_fs`; None if nothing does."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse"
    if shutil.which("fusermount3") is None:
        return "no fusermount3: apt-get install fuse3"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"no mfusepy ({error}): pip install mfusepy"
    return None if os.getuid() == 0 else "only root can mount what all see"


def why_no_sshfs() -> str | None:
    """What keeps us from `sshd`; None if nothing does."""
    missing = [name for name in ("sshfs", "ssh-keygen", "sshd") if _program(name) is None]
    return f"no {', '.join(missing)}: apt-get install sshfs openssh-server" if missing else why_no_fuse()


@dataclass(frozen=True)
class Mount:
    """A client's view of the server's folder. server: that folder itself, as no client sees it."""

    folder: Path
    server: Path
    process: "subprocess.Popen[bytes]"
    control: Path

    def obey(self, **order: Any) -> None:
        """What network/worst_fs.py shall do from now on, see there; nothing: be well again."""
        aside = self.control.with_suffix(".new")
        aside.write_text(json.dumps(order))
        aside.replace(self.control)

    def cut(self) -> None:
        """The client is gone for good: every call fails with ENOTCONN, also those that wait."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Server:
    """A folder, and where clients of it are mounted."""

    path: Path
    mounts: Path


@contextmanager
def server_folder() -> Iterator[Server]:
    """A folder that is shared; its path is short, and no mount is below the folders that pytest removes."""
    folder = Path(tempfile.mkdtemp(prefix="at-net-", dir="/tmp"))
    server = Server(folder / "server", folder / "mounts")
    for path in (server.path, server.mounts):
        path.mkdir()
    try:
        yield server
    finally:
        if not any(map(os.path.ismount, server.mounts.iterdir())):  # else it would be emptied through the mount
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def worst_fs(server: Server, name: str, **options: Any) -> Iterator[Mount]:
    """Mount a client, with `WorstOptions`."""
    control, chosen = server.mounts / f"{name}.json", json.dumps(asdict(WorstOptions(**options)))
    words = [sys.executable, str(PROGRAM), str(server.path), str(server.mounts / name), chosen, str(control)]
    with _mounted(server, name, words, control) as mount:
        yield mount


@dataclass(frozen=True)
class Sshd:
    """A daemon of our own that serves a folder."""

    server: Server
    folder: Path
    port: int

    @contextmanager
    def mount(self, name: str, *options: str) -> Iterator[Mount]:
        """Mount a client by sshfs, with its default caches and these options of `-o`."""
        key, target = self.folder / "user_key", f"{getpass.getuser()}@127.0.0.1:{self.server.path}"
        ssh = (f"IdentityFile={key}", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        words = [str(_program("sshfs")), "-f", "-p", str(self.port), target, str(self.server.mounts / name)]
        words += [word for option in ("auto_unmount", *ssh, *options) for word in ("-o", option)]
        with _mounted(self.server, name, words, self.folder / "none.json") as mount:
            yield mount


@contextmanager
def sshd() -> Iterator[Sshd]:
    """Run a daemon on 127.0.0.1, with keys and configuration of its own."""
    with ExitStack() as stack:
        server = stack.enter_context(server_folder())
        folder = server.mounts.parent / "ssh"
        folder.mkdir(mode=0o700)
        for name in ("host_key", "user_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "config").write_text(SSHD_CONFIGURATION.format(port=port, folder=folder))
        Path("/run/sshd").mkdir(exist_ok=True)  # it wants this one
        daemon = _started([str(_program("sshd")), "-D", "-e", "-f", str(folder / "config")], folder / "sshd.log")
        stack.callback(_end, daemon)
        wait_until(lambda: _answers(port), 30)
        yield Sshd(server, folder, port)


@contextmanager
def _mounted(server: Server, name: str, words: list[str], control: Path) -> Iterator[Mount]:
    folder, log = server.mounts / name, server.mounts / f"{name}.log"
    folder.mkdir()
    process = _started(words, log)
    try:
        wait_until(lambda: process.poll() is not None or os.path.ismount(folder), 30)
        assert process.poll() is None, log.read_text()
        yield Mount(folder, server.path, process, control)
    finally:
        # First the process: calls that hang end by that. Lazily, since somebody may still be in there.
        _end(process)
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


def _started(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """A process that dies with this one."""
    with log.open("ab") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=parent_death_signal(signal.SIGKILL),
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
