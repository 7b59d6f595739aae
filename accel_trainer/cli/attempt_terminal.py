"""What is printed while trainers run: their logs, progress bars, and what happens to them."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from accel_trainer.cli.app import with_flags
from accel_trainer.cli.attempt_lines import harmless, indented, line_of_attempt
from accel_trainer.cli.console import is_behind
from accel_trainer.cli.progress import Bars
from accel_trainer.cli.progress_words import line_of_status
from accel_trainer.core.text import printable
from accel_trainer.launch.attempt_events import (
    AttemptEvent,
    AttemptFinished,
    AttemptStarted,
    AttemptStopping,
    AttemptTerminating,
    Tick,
)
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.log import LogTail
from accel_trainer.run.status import Status, attempt_status

SHOW_EVERY_S = 0.3
# Where there is no terminal, and a trainer writes no line in its log for so long, one says how far it is.
SAY_EVERY_S = 30.0


@dataclass
class _Shown:
    """A trainer on the terminal."""

    run: RunFolder
    tail: LogTail
    token: str
    said_at: float


class AttemptTerminal:
    """Prints what happens to trainers: their logs, how they ended, and on a terminal a progress bar for each.

    Where several train side by side, each line begins with the name of its job.
    """

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._trainers: dict[str, _Shown] = {}
        self._shown = 0.0
        self._bars: Bars | None = None
        self._is_stopping = False

    def __call__(self, event: AttemptEvent) -> None:
        """Print an event. Whatever goes wrong with that is no reason to end a training."""
        try:
            self._show_attempt(event)
        except Exception:
            self._print_plainly(lambda: line_of_attempt(harmless(event)))

    def _print_plainly(self, line: Callable[[], str]) -> None:
        self._bars = None
        with suppress(Exception):
            self._print(line())

    def _show_attempt(self, event: AttemptEvent) -> None:
        match event:
            case Tick():
                self._refresh_if_due()
                return
            case AttemptStopping() if self._is_stopping:
                return
        line = line_of_attempt(harmless(event))
        match event:
            case AttemptStarted(name=name, run=run, token=token):
                self._print(line)
                self._add(name, run, token)
            case AttemptTerminating(name=name, reason=reason):
                self._refresh(name)
                self._print(line if self._several else indented(reason))
            case AttemptFinished(name=name):
                self._end(name, line)
            case AttemptStopping():
                self._print(line)
                self._is_stopping = True

    def _end(self, name: str, line: str) -> None:
        self._refresh(name)
        self._remove(name)
        self._print(line)

    def _add(self, name: str, run: RunFolder, token: str) -> None:
        self._trainers[name] = _Shown(run, LogTail(run.log), token, time.monotonic())
        if sys.stdout.isatty():
            if self._bars is None:
                self._bars = Bars()
            self._bars.add(name, shows_name=self._several)

    def _remove(self, name: str) -> None:
        self._trainers.pop(name, None)
        if self._bars is not None:
            with suppress(OSError):
                self._bars.remove(name)
            if not self._trainers:
                self._bars = None

    def _refresh_if_due(self) -> None:
        if time.monotonic() - self._shown >= SHOW_EVERY_S:
            self._shown = time.monotonic()
            for name in self._trainers:
                self._refresh(name)
            if self._bars is not None and not is_behind():
                self._bars.refresh()

    def _refresh(self, name: str) -> None:
        """Print what is new in the log of a trainer, and move its bar."""
        shown = self._trainers.get(name)
        if shown is None:
            return
        before = f"  {name}: " if self._several else "  "
        for line in shown.tail.new_lines():
            self._print(f"{before}{line}")
            shown.said_at = time.monotonic()
        if self._bars is None and time.monotonic() - shown.said_at < SAY_EVERY_S:
            return
        if (status := attempt_status(shown.run, shown.token.__eq__)) is not None:
            with suppress(OSError, OverflowError):
                self._show_status(name, before, status)

    def _show_status(self, name: str, before: str, status: Status) -> None:
        """Move the bars of a trainer; without bars, print a line. Raises OverflowError for a status that is damaged."""
        if self._bars is not None:
            self._bars.show(name, status)
        elif (line := line_of_status(status)) is not None:
            self._trainers[name].said_at = time.monotonic()
            self._print(f"{before}{line}")

    def _print(self, text: str) -> None:
        text = printable(with_flags(text))
        with suppress(OSError):  # the terminal has gone; the training has not
            if self._bars is not None:
                self._bars.print(text)
            else:
                print(text, flush=True)
