"""What a check says: all is well, this may hurt, or this will; in one line, with how to mend it."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any, Self

from accel_trainer.core.processes import parent_death_signal
from accel_trainer.core.text import first_line


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was found; `fix` is there unless all is well."""

    grade: Grade
    message: str
    fix: str | None = None


def ok(message: str) -> Finding:
    return Finding(Grade.OK, message)


def warning(message: str, fix: str) -> Finding:
    return Finding(Grade.WARNING, message, fix)


def problem(message: str, fix: str) -> Finding:
    return Finding(Grade.PROBLEM, message, fix)


@dataclass(frozen=True)
class Check:
    """Something to look at, by the name that its line has."""

    name: str
    run: Callable[[], Finding]


def run_checks(checks: Iterable[Check]) -> Iterator[tuple[str, Finding]]:
    """The lines of some checks, each as soon as it is known. A check that breaks is a problem, too."""
    for check in checks:
        try:
            finding = check.run()
        except Exception as error:
            finding = problem(
                f"this check has broken: {type(error).__name__}: {first_line(error)}",
                "try what it names by hand; where that works, it is a mistake of accel-train",
            )
        yield check.name, finding


class ProbeFailed(Exception):
    """A probe has ended, or was ended, without an answer, for this reason."""


class Probe:
    """A program of ours that prints an object in JSON as its last line. It is started at once and asked late."""

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
                preexec_fn=parent_death_signal(),
            )
        except OSError as error:  # no folder for temporary files, too many processes
            self._failure = f"it cannot be started: {error.strerror}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._failure is None:
            self._process.kill()
            self._process.wait()
        self._files.close()

    def answer(self, limit_s: float) -> dict[str, Any]:
        """Wait for it until `limit_s` after the start. Raises ProbeFailed."""
        if self._failure is not None:
            raise ProbeFailed(self._failure)
        try:
            code = self._process.wait(max(0.1, self._began + limit_s - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise ProbeFailed(f"no answer within {limit_s:.0f} s") from error
        if code < 0:
            raise ProbeFailed(f"it was ended by signal {-code}")
        lines = self._lines(self._output)
        try:
            told: dict[str, Any] = json.loads(lines[-1])
        except (IndexError, ValueError) as error:
            errors = self._lines(self._errors)
            raise ProbeFailed(errors[-1] if errors else f"it has ended with {code} and not a word") from error
        return told

    @staticmethod
    def _lines(output: IO[bytes]) -> list[str]:
        output.seek(0)
        return [line for line in output.read().decode(errors="replace").splitlines() if line.strip()]
