"""Mistakes are found before a job is claimed: shapes at once, the rest in a process that may import torch."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from accel_trainer.config import Job, read_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import Program, parent_death_signal
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.attempt_files import make_scratch, remove_scratch
from accel_trainer.launch.command import LaunchOptions, gpus_lacking, num_processes_wanted
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.protocol import TOKEN_VARIABLE
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.layout import QueuedJob

# A file that does not parse may still be on its way: it is refused when it has not changed for so long.
SETTLED_S = 2.0
# How many files one checking process is given: command lines have a limit.
AT_ONCE = 200


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


class PendingChecker:
    """Knows of every pending file whether it is valid, invalid (and why), or not checked yet."""

    def __init__(self, options: LaunchOptions, queue: Path, machine: Machine | None = None) -> None:
        """`options` are those of the run; `queue` is the folder in which jobs are looked up that others name.

        machine: that on which the jobs are launched, where it is known.
        """
        self._options, self._machine = options, machine
        self._arguments = [*options.argv(), "--queue", str(queue)]
        self._problems: dict[Version, list[str]] = {}
        self._needs: dict[Version, Requirements] = {}  # of files that parse
        self._first_seen: dict[Version, float] = {}
        self._process: _Process | None = None

    @property
    def is_busy(self) -> bool:
        """Whether some files are being checked."""
        return self._process is not None

    def check(self, jobs: Iterable[QueuedJob]) -> tuple[dict[QueuedJob, Requirements], list[tuple[QueuedJob, str]]]:
        """Valid jobs with what they need, and invalid ones with reasons; never waits. To be called repeatedly.

        Raises UnusableHere, before any job is called invalid for what is wrong with this machine.
        """
        self._collect()
        valid: dict[QueuedJob, Requirements] = {}
        invalid, unknown = [], []
        for job in jobs:
            if (version := Version.of(job.path)) is None:
                continue  # gone since it was listed
            problems = self._problems.get(version)
            if problems is None and version not in self._needs:
                try:
                    read = read_job(job.path)
                    self._needs[version] = self._requirements(read)
                except UnusableHere:
                    raise
                except UserError as error:
                    if not self._is_settled(version):
                        continue
                    problems = error.problems
            if problems is None:
                unknown.append(version)
            elif problems:
                invalid.append((job, "\n".join(problems)))
            else:
                valid[job] = self._needs[version]
        if unknown and self._process is None:
            self._process = _Process(unknown[:AT_ONCE], self._arguments)
        return valid, invalid

    def close(self) -> None:
        """End the process that checks files."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _collect(self) -> None:
        if self._process is None:
            return
        self._problems |= self._process.verdicts()
        if self._process.is_over:
            # It died of the first file without a verdict: the trainer will report what is wrong with that one; the
            # others are looked at again.
            for version in self._process.without_verdict()[:1]:
                self._problems[version] = []
            self._process.end()
            self._process = None

    def _requirements(self, job: Job) -> Requirements:
        lacking = None if self._machine is None else gpus_lacking(job, self._options, self._machine)
        return Requirements.of(job, num_processes_wanted(job, self._options, self._machine), lacking)

    def _is_settled(self, version: Version) -> bool:
        """Whether a file has not changed since we know it, for a while by our own clock: time stamps are those of the
        file server's, or of the file that it is a copy of."""
        return time.monotonic() - self._first_seen.setdefault(version, time.monotonic()) > SETTLED_S


class _Process:
    """workers/validate on some files; verdicts come as lines while it works."""

    def __init__(self, versions: list[Version], arguments: list[str]) -> None:
        self._open = {str(version.path): version for version in versions}
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        command = Program.VALIDATE.command(*arguments, *self._open)
        self._token = Owner.new().token
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **make_scratch(self._token), TOKEN_VARIABLE: self._token},
            preexec_fn=parent_death_signal(),
        )
        self._read = 0

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def verdicts(self) -> dict[Version, list[str]]:
        """What has been found since the last call."""
        over = self.is_over  # before reading: what it wrote last is then there
        self._output.seek(self._read)
        text = self._output.read()
        whole = text if over else text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        found = {}
        for line in whole.splitlines():
            verdict = json.loads(line)
            if (version := self._open.pop(verdict["file"], None)) is not None:
                found[version] = verdict["problems"]
        return found

    def without_verdict(self) -> list[Version]:
        return list(self._open.values())

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._output.close()
        remove_scratch(self._token)
