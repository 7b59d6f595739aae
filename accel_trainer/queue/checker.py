"""Mistakes are found before a job is claimed: shapes at once, the rest in a process that may import torch."""

import time
from collections.abc import Iterable
from pathlib import Path

from accel_trainer.config import Job, read_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import duration, first_line
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.command import LaunchOptions, gpus_lacking, num_processes_wanted
from accel_trainer.launch.machine import Machine
from accel_trainer.queue.check_process import CheckProcess, Version
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.layout import QueuedJob

# A file that does not parse may still be on its way: it is refused when it has not changed for so long.
SETTLED_S = 2.0
# How many files one checking process is given: command lines have a limit.
AT_ONCE = 200
# How long the check of one file may take, before all others are checked and after that.
CHECK_S, LONG_CHECK_S = 120.0, 900.0


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
        self._slow: set[Version] = set()
        self._process: CheckProcess | None = None

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
                except Exception as error:  # whatever it is, it is of this file alone
                    if not self._is_settled(version):
                        continue
                    problems = _problems(job, error)
            if problems is None:
                unknown.append(version)
            elif problems:
                invalid.append((job, "\n".join(problems)))
            else:
                valid[job] = self._needs[version]
        if unknown and self._process is None:
            # What takes long waits until all others are checked, and is then checked alone.
            quick = [version for version in unknown if version not in self._slow][:AT_ONCE]
            self._process = CheckProcess(quick or unknown[:1], self._arguments, CHECK_S if quick else LONG_CHECK_S)
        return valid, invalid

    def close(self) -> None:
        """End the process that checks files."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _collect(self) -> None:
        if (process := self._process) is None:
            return
        is_over = process.is_over  # before reading: what it wrote last is then there
        self._problems |= process.verdicts()
        if not (is_over or process.has_hung):
            return
        for version in process.without_verdict()[:1]:  # the others are looked at again
            if is_over:  # it died of this one: the trainer will report what is wrong with it
                self._problems[version] = []
            elif version in self._slow:
                self._problems[version] = [_hung(version.path)]
            else:
                self._slow.add(version)
        self.close()

    def _requirements(self, job: Job) -> Requirements:
        lacking = None if self._machine is None else gpus_lacking(job, self._options, self._machine)
        return Requirements.of(job, num_processes_wanted(job, self._options, self._machine), lacking)

    def _is_settled(self, version: Version) -> bool:
        """Whether a file has not changed since we know it, for a while by our own clock: time stamps are those of the
        file server's, or of the file that it is a copy of."""
        return time.monotonic() - self._first_seen.setdefault(version, time.monotonic()) > SETTLED_S


def _problems(job: QueuedJob, error: Exception) -> list[str]:
    if isinstance(error, UserError):
        return error.problems
    return [f"{job.path}: cannot be checked: {type(error).__name__}: {first_line(error)}"]


def _hung(path: Path) -> str:
    return (
        f"{path}: its check had not ended after {duration(LONG_CHECK_S)}: does a model wait for something when it is "
        "imported, or does a drive of the data set not answer?"
    )
