"""A look that is taken by a process of its own: it takes seconds, may hang, or may break what looks."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO, Any, Self

from accel_trainer.core.processes import parent_death_signal


class ProbeFailed(Exception):
    """A probe has ended, or was ended, without an answer, for this reason."""


class Probe:
    """A module of ours that prints an object in JSON as its last line. It is started at once and asked late."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._module, self._environment = module, environment
        self._began = time.monotonic()
        self._failure: str | None = None

    def __enter__(self) -> Self:
        self._files = ExitStack()
        try:
            self._output = self._files.enter_context(tempfile.TemporaryFile())
            self._errors = self._files.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
                env=self._environment,
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
