"""Mistakes are found before a job is claimed: shapes at once, the rest in a process that may import torch."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, assert_never

from accel_trainer.config import EvaluationJob, QueueJob, read_queue_job
from accel_trainer.config.job_text import read_bytes
from accel_trainer.config.parse import rest_of_job
from accel_trainer.core.errors import InvalidJob, UserError
from accel_trainer.core.machine_errors import why_of_machine
from accel_trainer.core.text import first_line
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.command import LaunchOptions, gpus_lacking, num_processes_wanted
from accel_trainer.launch.machine import Machine
from accel_trainer.queue.check_process import CHECK_S, LONG_CHECK_S, CheckEnd, CheckProcess, Context, Verdict, hung
from accel_trainer.queue.dependencies import Requirements, trainer_of
from accel_trainer.queue.layout import QueuedJob
from accel_trainer.queue.store import QueueStore

# A file that does not parse may still be on its way: it is refused when it has not changed for so long.
SETTLED_S = 2.0
# How many files one checking process is given.
AT_ONCE = 200


class Version(NamedTuple):
    """One state of a file: a file that is changed is checked again. Thousands of them are looked up again and again, so
    they are tuples, and have no paths but texts in them."""

    file: str
    inode: int
    modified_ns: int
    size: int

    @property
    def path(self) -> Path:
        """Of the file."""
        return Path(self.file)

    @classmethod
    def of(cls, path: Path) -> "Version | None":
        """The state of a file now; None where it is gone."""
        file = os.fspath(path)
        try:
            stat = os.lstat(file)
        except OSError:
            return None
        return cls(file, stat.st_ino, stat.st_mtime_ns, stat.st_size)

    def read(self) -> bytes | None:
        """What is in the file in this state; None where it is gone by now, or another. Raises InvalidJob, which names
        what keeps it from being read."""
        try:
            content = read_bytes(self.path)
        except InvalidJob as error:
            if isinstance(error.__cause__, FileNotFoundError) or Version.of(self.path) != self:
                return None
            raise
        return content if Version.of(self.path) == self else None


class PendingChecker:
    """Knows of every pending file whether it is valid, invalid (and why), or not checked yet."""

    def __init__(self, options: LaunchOptions, queue: Path, machine: Machine | None = None) -> None:
        """`options` are those of the run; `queue` is the folder in which jobs are looked up that others name.

        machine: that on which the jobs are launched, where it is known.
        """
        self._options, self._machine, self._queue = options, machine, queue
        self._problems: dict[Version, list[str]] = {}
        self._needs: dict[Version, Requirements] = {}  # of files that parse
        self._in_file: dict[Version, list[str]] = {}  # of others, what is wrong with them in themselves
        self._first_seen: dict[Version, float] = {}
        self._slow: set[Version] = set()
        self.unreadable: dict[QueuedJob, UserError] = {}  # at the last check, for what is the machine's
        self._process: CheckProcess | None = None
        self._asked: dict[int, Version] = {}  # by the numbers of their checks, those without a verdict

    @property
    def is_busy(self) -> bool:
        """Whether some files are being checked."""
        return self._process is not None

    def check(self, jobs: Iterable[QueuedJob]) -> tuple[dict[QueuedJob, Requirements], list[tuple[QueuedJob, str]]]:
        """Valid jobs with what they need, and invalid ones with reasons; never waits. To be called repeatedly.

        Raises UnusableHere, before any job is called invalid for what is wrong with this machine.
        """
        self._collect()
        self.unreadable = {}
        valid: dict[QueuedJob, Requirements] = {}
        invalid, unknown = [], []
        for job in jobs:
            if (version := Version.of(job.path)) is None:
                continue  # gone since it was listed
            problems = self._problems.get(version)
            if problems is None and version not in self._needs and version not in self._in_file:
                try:
                    read = read_queue_job(job.path)
                    if Version.of(job.path) != version:
                        continue  # another file by now
                    self._needs[version] = self._requirements(read)
                except UnusableHere:
                    raise
                except Exception as error:  # whatever it is, it is of this file alone
                    if isinstance(error.__cause__, FileNotFoundError) or Version.of(job.path) != version:
                        continue  # gone or changed since it was listed
                    if isinstance(error, UserError) and why_of_machine(error) is not None:
                        self.unreadable[job] = error
                        continue
                    if not self._is_settled(version):
                        continue
                    if isinstance(error, InvalidJob) and _has_more(version, error):
                        self._in_file[version] = error.problems
                    else:
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
            self._begin(quick or unknown[:1], CHECK_S if quick else LONG_CHECK_S)
        return valid, invalid

    def _begin(self, versions: list[Version], limit_s: float) -> None:
        contents = {}
        for version in versions:
            # A verdict is of bytes that were read: a file may be held or claimed while it waits for its check.
            with suppress(InvalidJob):  # as the next look finds
                if (content := version.read()) is not None:
                    contents[version] = content
        if not contents:
            return
        self._process = process = CheckProcess()
        context = Context.here(self._queue, self._options, {version.path.stem for version in versions})
        self._asked = {
            process.send((version.path, content), context, limit_s): version for version, content in contents.items()
        }

    def give_way(self) -> None:
        """Jobs are trained: what is checked now yields to them."""
        if self._process is not None:
            self._process.give_way()

    def close(self) -> None:
        """End the process that checks files."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _collect(self) -> None:
        if (process := self._process) is None:
            return
        is_over = process.is_over  # before reading: what it wrote last is then there
        for number, verdict in process.verdicts().items():
            self._note(self._asked.pop(number), verdict)
        if self._asked and not (is_over or process.has_hung):
            return
        for version in list(self._asked.values())[:1]:  # the others are looked at again
            self._note(version, Verdict(end=CheckEnd.CRASHED if is_over else CheckEnd.HUNG))
        self.close()

    def _note(self, version: Version, verdict: Verdict) -> None:
        match verdict.end:
            case _ if version in self._in_file and (verdict.end is not CheckEnd.DONE or not verdict.problems):
                self._problems[version] = self._in_file[version]
            case CheckEnd.DONE:
                self._problems[version] = [f"{version.file}: {problem}" for problem in verdict.problems]
            case CheckEnd.CRASHED | CheckEnd.LACKING:  # the trainer will report what is wrong, with its log
                self._problems[version] = []
            case CheckEnd.HUNG if version in self._slow:
                self._problems[version] = [f"{version.file}: {hung(LONG_CHECK_S)}"]
            case CheckEnd.HUNG:
                self._slow.add(version)
            case _:
                assert_never(verdict.end)

    def _requirements(self, job: QueueJob) -> Requirements:
        trainer = trainer_of(job, QueueStore(self._queue)) if isinstance(job, EvaluationJob) else None
        lacking = None if self._machine is None else gpus_lacking(job, self._options, self._machine)
        return Requirements.of(job, num_processes_wanted(job, self._options, self._machine), lacking, trainer)

    def _is_settled(self, version: Version) -> bool:
        """Whether a file has not changed since we know it, for a while by our own clock: time stamps are those of the
        file server's, or of the file that it is a copy of."""
        return time.monotonic() - self._first_seen.setdefault(version, time.monotonic()) > SETTLED_S


def _has_more(version: Version, error: InvalidJob) -> bool:
    """Whether there is something left in a file with these mistakes, in which a check may find more."""
    try:
        content = version.read()
        return content is not None and rest_of_job(content, version.path, error.details) is not None
    except InvalidJob:  # it cannot be read any more, or no job has such a name
        return False


def _problems(job: QueuedJob, error: Exception) -> list[str]:
    if isinstance(error, UserError):
        return error.problems
    return [f"{job.path}: cannot be checked: {type(error).__name__}: {first_line(error)}"]
