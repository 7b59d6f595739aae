"""What is printed while trainers run: their logs, progress bars, and what happens in the queue."""

import sys
import time
from contextlib import suppress
from dataclasses import dataclass

from accel_trainer.cli.app import with_flags
from accel_trainer.cli.console import is_behind
from accel_trainer.cli.event_lines import indented, line_of
from accel_trainer.cli.progress import Bars
from accel_trainer.core.text import printable
from accel_trainer.launch.attempt_events import (
    AttemptFinished,
    AttemptStarted,
    AttemptStopping,
    AttemptTerminating,
    Tick,
)
from accel_trainer.queue.events import (
    ClaimFinished,
    Event,
    JobSubmitted,
    WaitingForJobs,
)
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.log import LogTail
from accel_trainer.run.status import attempt_status

SHOW_EVERY_S = 0.3


@dataclass
class _Shown:
    """A trainer on the terminal."""

    run: RunFolder
    tail: LogTail
    token: str


class Terminal:
    """Prints events: the logs of trainers, how jobs ended, and on a terminal a progress bar for each trainer.

    Where several train side by side, each line begins with the name of its job.
    """

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._trainers: dict[str, _Shown] = {}
        self._shown = 0.0
        self._bars: Bars | None = None
        self._is_waiting = self._is_stopping = False

    def __call__(self, event: Event) -> None:
        """Print an event. Whatever goes wrong with that is no reason to end a training."""
        try:
            self._show(event)
        except Exception:
            self._bars = None
            with suppress(Exception):
                self._print(line_of(event))

    def _show(self, event: Event) -> None:
        match event:
            case Tick():
                self._refresh_if_due()
            case AttemptStarted(name=name, run=run, token=token):
                self._is_waiting = False
                self._print(line_of(event))
                self._add(name, run, token)
            case AttemptTerminating(name=name, reason=reason):
                self._refresh(name)
                self._print(line_of(event) if self._several else indented(reason))
            case AttemptFinished(name=name) | ClaimFinished(name=name):
                self._refresh(name)
                self._remove(name)
                self._print(line_of(event))
            case AttemptStopping():
                if not self._is_stopping:
                    self._print(line_of(event))
                self._is_stopping = True
            case WaitingForJobs():
                if not self._is_waiting:
                    self._print(line_of(event))
                self._is_waiting = True
            case _:
                self._is_waiting &= not isinstance(event, JobSubmitted)
                self._print(line_of(event))

    def _add(self, name: str, run: RunFolder, token: str) -> None:
        self._trainers[name] = _Shown(run, LogTail(run.log), token)
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
        if self._bars is None:
            return
        if (status := attempt_status(shown.run, shown.token.__eq__)) is not None:
            with suppress(OSError, OverflowError):
                self._bars.show(name, status)

    def _print(self, text: str) -> None:
        text = printable(with_flags(text))
        with suppress(OSError):  # the terminal has gone; the training has not
            if self._bars is not None:
                self._bars.print(text)
            else:
                print(text, flush=True)
