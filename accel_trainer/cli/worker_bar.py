"""How far a worker is that a verb has called and waits for."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from accel_trainer.core.text import duration, printable

if TYPE_CHECKING:
    from rich.progress import Progress

# A worker that is called says within a second what it does, and where nobody sees a bar a line in so many seconds.
_BAR_AFTER_S, LINE_EVERY_S = 0.5, 30.0


class WorkerBar:
    """How far a worker is: a bar at a terminal, else a line every 30 seconds. what: as in `r: the evaluation`."""

    def __init__(self, what: str) -> None:
        self._what, self._began, self._said = printable(what), time.monotonic(), time.monotonic()
        self._bar: Progress | None = None
        self._is_seen = sys.stderr.isatty()

    def __call__(self, done: int | None, total: int | None) -> None:
        """Show it. done, total: None where it is not known."""
        now = time.monotonic()
        if self._is_seen and now - self._began >= _BAR_AFTER_S:
            self._draw(done, total)
        elif not self._is_seen and now - self._said >= LINE_EVERY_S:
            self._said = now
            how_far = f"{duration(now - self._began)}" if done is None else f"{done:,} of {total:,} trials"
            typer.echo(f"{self._what}: {how_far}", err=True)

    def _draw(self, done: int | None, total: int | None) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self._what, total=None)
            self._bar.start()
        if done is not None:
            text = f"{self._what}: {done:,} of {total:,} trials"
            self._bar.update(self._bar.tasks[0].id, completed=done, total=total, description=text)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def worker_bar(what: str) -> Iterator[WorkerBar]:
    """A bar for as long as a worker is called."""
    bar = WorkerBar(what)
    try:
        yield bar
    finally:
        bar.close()
