"""A process that checks jobs: it has a time limit for each of them, and a channel of its own for its verdicts."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from accel_trainer.config import QueueJob
from accel_trainer.core.child_environment import child_environment, helper_environment
from accel_trainer.core.giving_way import lower_priority
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.lease import Owner
from accel_trainer.core.line_reader import BLOCK, LineReader
from accel_trainer.core.processes import Program, pids_with_env, send_signal
from accel_trainer.core.text import duration
from accel_trainer.launch.attempt_files import make_scratch, remove_scratch
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.nvidia import passed_on

# For a process to end that is told to, or killed: one that hangs in the system does not.
END_S = 5.0
# How long the check of one job may take at first, and in the end: a data set on a cold drive takes long.
CHECK_S, LONG_CHECK_S = 120.0, 900.0
# How long its model may take, once its data set is known.
MODEL_S = 120.0
# By how much later than a limit a verdict may come: the process has to import torch, from whatever drive.
START_S = 300.0


class CheckEnd(StrEnum):
    """How a check ended: with a verdict; not in time; it broke, by whatever the job's model did; or for want of
    threads, processes or open files."""

    DONE = "done"
    HUNG = "hung"
    CRASHED = "crashed"
    LACKING = "lacking"


@dataclass(frozen=True)
class Verdict:
    """What has been found of one job: its mistakes, or what it comes to."""

    problems: list[str] = field(default_factory=list)
    summary: dict[str, Any] | None = None
    end: CheckEnd = CheckEnd.DONE


@dataclass(frozen=True)
class Context:
    """In which surroundings jobs are checked, and for which queue and launches.

    paths: where modules are looked for, after all other places. coming: names of jobs that they may start from.
    """

    queue: str
    config: str | None
    num_processes: int | None
    gpus: list[str] | None
    cpu: bool
    coming: list[str]
    folder: str | None
    environment: dict[str, str]
    paths: list[str]

    @classmethod
    def here(
        cls, queue: Path, options: LaunchOptions, coming: Collection[str] = (), paths: Collection[str] = ()
    ) -> "Context":
        """The surroundings of this process as they are now."""
        folder = None
        with suppress(OSError):  # it has been removed
            folder = os.getcwd()  # noqa: PTH109 - a plain text
        config = None if options.config is None else str(options.config)
        gpus = None if options.gpus is None else list(options.gpus)
        environment = {**child_environment(), **({} if options.cpu else passed_on())}
        return cls(
            str(queue),
            config,
            options.num_processes,
            gpus,
            options.cpu,
            sorted(coming),
            folder,
            environment,
            list(paths),
        )


class CheckProcess:
    """`Program.VALIDATE`. Requests go to it, and verdicts come from it, as lines by pipes that nothing else is written
    to: what models print, by whatever means, goes nowhere. It ends with this process, or when it has long been idle."""

    def __init__(self) -> None:
        """Start it. Raises OSError."""
        self._token = Owner.new().token
        environment = {**helper_environment(), TOKEN_VARIABLE: self._token}
        with suppress(OSError):  # without a folder of its own it has the usual one
            environment |= make_scratch(self._token)
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            self._process = start(pipes[0], pipes[3], environment)
        except OSError:
            for descriptor in pipes:
                os.close(descriptor)
            remove_scratch(self._token)
            raise
        requests, self._requests, self._answers, answers = pipes
        os.close(requests)
        os.close(answers)
        for descriptor in (self._requests, self._answers):
            os.set_blocking(descriptor, False)
        self._context: Context | None = None
        self._number, self._gives_way = 0, False
        self._open: dict[int, float] = {}  # the checks without a verdict, with the time that each may take
        self._unsent, self._lines = bytearray(), LineReader(self._answers)
        self._heard = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def give_way(self) -> None:
        """From now on it yields to all else that computes on this machine."""
        if not self._gives_way:
            self._gives_way = True
            lower_priority(TOKEN_VARIABLE, self._token)

    @property
    def has_hung(self) -> bool:
        """Whether it does not even tell that a check takes too long."""
        limit = next(iter(self._open.values()), None)
        return limit is not None and time.monotonic() - self._heard > limit

    def send(self, job: QueueJob | tuple[Path, bytes], context: Context, limit_s: float) -> int:
        """Have a job checked, or a job file of some content, after all those before; its number. limit_s: seconds for
        its data set."""
        if context != self._context:
            self._context = context
            self._put({"context": asdict(context)})
        self._number += 1
        limits = {"limit_s": limit_s, "model_s": MODEL_S}
        if isinstance(job, tuple):
            path, content = job  # any bytes are text in Latin-1
            self._put({"check": self._number, **limits, "file": str(path), "content": content.decode("latin-1")})
        else:
            self._put({"check": self._number, **limits, "name": job.name, "job": job.said()})
        if not self._open:
            self._heard = time.monotonic()
        self._open[self._number] = limit_s + MODEL_S + START_S
        self._flush()
        return self._number

    def verdicts(self) -> Mapping[int, Verdict]:
        """What has been found since the last call, by number; never waits."""
        self._flush()
        while self._lines.read():
            pass
        found = {}
        while (line := self._lines.next()) is not None:
            answer = _verdict(line)
            if answer is not None and self._open.pop(answer[0], None) is not None:
                found[answer[0]] = answer[1]
        if found:
            self._heard = time.monotonic()
        return found

    def wait(self, number: int) -> Verdict:
        """The verdict on a job; to be called for one job at a time."""
        while True:
            is_over = self.is_over  # before reading: what it wrote last is then there
            if (verdict := self.verdicts().get(number)) is not None:
                return verdict
            if is_over:
                return Verdict(["its check has ended without a verdict"], end=CheckEnd.CRASHED)
            if self.has_hung:
                return Verdict(end=CheckEnd.HUNG)
            select.select([self._answers], [self._requests] if self._unsent else [], [], 1.0)

    def end(self) -> None:
        """End the process and all that it has started, whether it listens or not."""
        os.close(self._requests)
        if self._process.poll() is None:
            self._process.terminate()
            self._wait()
        send_signal(pids_with_env(TOKEN_VARIABLE, self._token), signal.SIGKILL)
        self._wait()
        os.close(self._answers)
        remove_scratch(self._token)

    def _put(self, request: Mapping[str, object]) -> None:
        self._unsent += json.dumps(request).encode() + b"\n"

    def _flush(self) -> None:
        """Send what there is room for."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self._requests, self._unsent[:BLOCK])]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more
            self._unsent.clear()

    def _wait(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)


def start(requests: int, answers: int, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the program, with a session of its own: a Ctrl-C at the terminal is not meant for it. Raises OSError."""
    return subprocess.Popen(
        Program.VALIDATE.command("--requests", str(requests), "--answers", str(answers)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        pass_fds=[requests, answers],
        start_new_session=True,
    )


def hung(limit_s: float) -> str:
    """What a job is told whose check has not ended in time."""
    return (
        f"its check had not ended after {duration(limit_s)}: does a model wait for something when it is imported or "
        "built, or does a drive of the data set not answer?"
    )


def _verdict(line: bytes) -> tuple[int, Verdict] | None:
    """(number, verdict) of a line; None for one that is no verdict."""
    try:
        match json.loads(line):
            case {
                "check": int(number),
                "problems": list(problems),
                "summary": dict() | None as summary,
                "end": str(end),
            }:
                return number, Verdict([str(problem) for problem in problems], summary, CheckEnd(end))
    except (ValueError, RecursionError):
        pass
    return None
