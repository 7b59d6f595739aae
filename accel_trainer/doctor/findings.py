"""What a check finds: ok, a warning or a problem, in one line, with how to fix it; and probes in other processes."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any, Self

from accel_trainer.core.child_environment import child_environment
from accel_trainer.core.machine_errors import as_system_error, told
from accel_trainer.core.processes import parent_death_signal
from accel_trainer.core.text import first_line

# What helps where threads, processes, open files or memory are lacking.
MORE_OF_IT = "allow more of it, or end other processes"


class Grade(StrEnum):
    """How serious a finding is. PROBLEM: something will fail; WARNING: something may."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of a check: its grade, one line of text, and how to fix it (None if it is ok)."""

    grade: Grade
    message: str
    fix: str | None = None


def ok(message: str) -> Finding:
    """A finding that needs no action."""
    return Finding(Grade.OK, message)


def warning(message: str, fix: str) -> Finding:
    """A finding that may cause a failure."""
    return Finding(Grade.WARNING, message, fix)


def problem(message: str, fix: str) -> Finding:
    """A finding that will cause a failure."""
    return Finding(Grade.PROBLEM, message, fix)


@dataclass(frozen=True)
class Check:
    """A named check. `run` gives its finding."""

    name: str
    run: Callable[[], Finding]


def run_checks(checks: Iterable[Check]) -> Iterator[tuple[str, Finding]]:
    """Run checks in order. Gives (name, finding), each as soon as it is known; a check that raises is a problem."""
    for check in checks:
        try:
            finding = check.run()
        except Exception as error:
            if (scarce := as_system_error(error)) is not None:
                finding = problem(f"cannot be tried: {told(scarce)}", MORE_OF_IT)
                yield check.name, finding
                continue
            finding = problem(
                f"this check has failed: {type(error).__name__}: {first_line(error)}",
                "try by hand what it names; if that works, report a bug in accel-train",
            )
        yield check.name, finding


class ProbeFailed(Exception):
    """A probe gave no answer; the message is the reason."""


class ProbeNotStarted(ProbeFailed):
    """What it would have tried is not known."""


class Probe:
    """A program of this package that prints a JSON object as its last line.

    The context starts it at once and kills it at the exit; `answer` is called later.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._began = time.monotonic()
        self._failure: str | None = None

    def __enter__(self) -> Self:
        self._files = ExitStack()
        try:
            self._output = self._files.enter_context(tempfile.TemporaryFile())
            self._errors = self._files.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
                env=child_environment(),
                preexec_fn=parent_death_signal(),
            )
        except OSError as error:  # no folder for temporary files, too many processes
            self._failure = f"no process can be started that tries it: {told(error)}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._failure is None:
            self._process.kill()
            self._process.wait()
        self._files.close()

    def answer(self, limit_s: float) -> dict[str, Any]:
        """The object that it prints, waited for until `limit_s` seconds after the start. Raises ProbeFailed."""
        if self._failure is not None:
            raise ProbeNotStarted(self._failure)
        try:
            code = self._process.wait(max(0.1, self._began + limit_s - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise ProbeFailed(f"no answer within {limit_s:.0f} s") from error
        if code < 0:
            raise ProbeFailed(f"it was ended by signal {-code}")
        lines = self._lines(self._output)
        try:
            content: dict[str, Any] = json.loads(lines[-1])
        except (IndexError, ValueError) as error:
            errors = self._lines(self._errors)
            raise ProbeFailed(errors[-1] if errors else f"it has ended with exit code {code} and no output") from error
        return content

    @staticmethod
    def _lines(output: IO[bytes]) -> list[str]:
        output.seek(0)
        return [line for line in output.read().decode(errors="replace").splitlines() if line.strip()]
