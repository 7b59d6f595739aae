"""A process that checks job files: it has a time limit for each of them, and a channel of its own for its verdicts."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from accel_trainer.core.child_environment import child_environment
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import Program, parent_death_signal, pids_with_env, send_signal
from accel_trainer.launch.attempt_files import make_scratch, remove_scratch
from accel_trainer.launch.protocol import TOKEN_VARIABLE

# For a process to end that is told to, or killed: one that hangs in the system does not.
END_S = 5.0


@dataclass(frozen=True)
class Version:
    """One state of a file: a file that is changed is checked again."""

    path: Path
    inode: int
    modified_ns: int
    size: int

    @classmethod
    def of(cls, path: Path) -> "Version | None":
        """The state of a file now; None where it is gone."""
        try:
            stat = os.lstat(path)
        except OSError:
            return None
        return cls(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


class CheckProcess:
    """`Program.VALIDATE` on some files. Verdicts come as lines while it works, in a file that nothing is printed to:
    what models print, by whatever means, goes nowhere."""

    def __init__(self, versions: list[Version], arguments: list[str], limit_s: float) -> None:
        """limit_s: seconds for each file. Raises OSError."""
        self.limit_s = limit_s
        self._open = {str(version.path): version for version in versions}
        self._token = Owner.new().token
        environment = {**child_environment(), **make_scratch(self._token), TOKEN_VARIABLE: self._token}
        self._answers: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        descriptor = self._answers.fileno()
        try:
            self._process = subprocess.Popen(
                Program.VALIDATE.command(*arguments, "--answers", str(descriptor), *self._open),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=[descriptor],
                preexec_fn=parent_death_signal(),
            )
        except OSError:
            self._answers.close()
            remove_scratch(self._token)
            raise
        self._read, self._partial = 0, b""
        self._heard = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @property
    def has_hung(self) -> bool:
        """Whether there was no verdict for longer than any file may take."""
        return time.monotonic() - self._heard > self.limit_s

    def verdicts(self) -> Mapping[Version, list[str]]:
        """What has been found since the last call: for each file its problems."""
        # The process shares our position in the file, which therefore stays where it writes.
        new = os.pread(self._answers.fileno(), os.fstat(self._answers.fileno()).st_size - self._read, self._read)
        self._read += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        found = {}
        for line in lines:
            if (verdict := _verdict(line)) is not None and (version := self._open.pop(verdict[0], None)) is not None:
                found[version] = verdict[1]
        if found:
            self._heard = time.monotonic()
        return found

    def without_verdict(self) -> list[Version]:
        """The files that are still to be checked, the one that is being checked first."""
        return list(self._open.values())

    def end(self) -> None:
        """End the process and all that it has started, whether it listens or not."""
        if self._process.poll() is None:
            self._process.terminate()
            self._wait()
        send_signal(pids_with_env(TOKEN_VARIABLE, self._token), signal.SIGKILL)
        self._wait()
        self._answers.close()
        remove_scratch(self._token)

    def _wait(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)


def _verdict(line: bytes) -> tuple[str, list[str]] | None:
    """(file, problems) of a line; None for one that is no verdict."""
    try:
        match json.loads(line):
            case {"file": str(file), "problems": list(problems)}:
                return file, [str(problem) for problem in problems]
    except (ValueError, RecursionError):
        pass
    return None
