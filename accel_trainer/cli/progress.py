"""Progress bars on the terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accel_trainer.cli.progress_words import Doing, doing_of, scores_of, share_of_run, speed_of
from accel_trainer.core.text import duration, printable
from accel_trainer.run.status import Status

if TYPE_CHECKING:
    from rich.progress import TaskID


STARTING = "starting the trainer"


class Bars:
    """How far runs are: of each a bar of what it does now, an epoch, its validation or what comes before; and below it
    one of the whole run. Where several train side by side, only one each, of the whole run."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Progress = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[share]}", markup=False),
            TextColumn("{task.fields[numbers]}", markup=False),
            auto_refresh=False,
        )
        self._bars: dict[str, _Bar] = {}
        self._progress.start()

    def add(self, name: str, *, shows_name: bool) -> None:
        """Add the bars of a run that starts."""
        now = None if shows_name else self._new(STARTING)
        description = f"{printable(name)}: {STARTING}" if shows_name else "run"
        self._bars[name] = _Bar(f"{printable(name)}: " if shows_name else "", now, self._new(description))

    def _new(self, description: str) -> "TaskID":
        return self._progress.add_task(description, total=None, share="", numbers="")

    def show(self, name: str, status: Status) -> None:
        """Move the bars of a run to where its status says it is. Raises OverflowError for a status that is damaged."""
        bar, doing, whole = self._bars[name], doing_of(status), share_of_run(status)
        if doing is None:
            return
        left = "" if status.eta_s is None else f"{duration(status.eta_s)} left"
        bar.note(doing)
        if bar.now is None:
            numbers = "  ".join(filter(None, (scores_of(status), left)))
            self._move(bar.run, f"{bar.before}{doing.what}", whole if whole is not None else doing.share, numbers)
        else:
            self._move(bar.now, doing.what, doing.share, scores_of(status))
            self._move(bar.run, "run", whole, "  ".join(filter(None, (left, speed_of(status)))))

    def _move(self, task: "TaskID", description: str, share: float | None, numbers: str) -> None:
        percent = "" if share is None else f"{share:>4.0%}"
        self._progress.update(
            task, description=description, total=1.0 if share is not None else None, completed=share or 0.0,
            share=percent, numbers=numbers,
        )  # fmt: skip

    def refresh(self) -> None:
        """Draw the bars as they are now. What has no share that is done has the time since it began."""
        for bar in self._bars.values():
            if bar.now is not None and bar.share is None:
                self._progress.update(bar.now, numbers=duration(time.monotonic() - bar.since))
        self._progress.refresh()

    def print(self, text: str) -> None:
        """Print a text above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def remove(self, name: str) -> None:
        """Remove the bars of a run; the last one takes the whole display with it."""
        if (bar := self._bars.pop(name, None)) is None:
            return
        for task in (bar.now, bar.run):
            if task is not None:
                self._progress.update(task, visible=False)
                self._progress.remove_task(task)
        if not self._bars:
            self._progress.stop()


@dataclass
class _Bar:
    """Of a run: what is before its descriptions, its bar of what it does now, if any, and that of the whole run; what
    it does, how much of that is done, and since when."""

    before: str
    now: "TaskID | None"
    run: "TaskID"
    what: str = STARTING
    share: float | None = None
    since: float = field(default_factory=time.monotonic)

    def note(self, doing: Doing) -> None:
        """Note what the run does now."""
        if doing.what != self.what:
            self.what, self.since = doing.what, time.monotonic()
        self.share = doing.share


@contextmanager
def preparation_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, from the first call of what it gives with (done, total)."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())

    def show(done: int, total: int) -> None:
        if not bar.tasks:
            bar.add_task(what, total=total)
            bar.start()
        bar.update(bar.tasks[0].id, completed=done)

    try:
        yield show
    finally:
        bar.stop()
