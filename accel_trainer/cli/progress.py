"""Progress bars on the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from accel_trainer.core.text import duration, printable
from accel_trainer.run.status import RunState, Status

if TYPE_CHECKING:
    from rich.progress import TaskID


class Bars:
    """The progress of each run over all its epochs."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Progress = Progress(
            TextColumn("  {task.description}{task.fields[epoch]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}", markup=False),
            auto_refresh=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def add(self, name: str, *, shows_name: bool) -> None:
        """Add the bar of a run that starts."""
        description = f"{printable(name)}: " if shows_name else ""
        self._tasks[name] = self._progress.add_task(description, total=None, epoch="starting", numbers="")

    def show(self, name: str, status: Status) -> None:
        """Move the bar of a run to where its status says it is. Raises OverflowError for a status that is damaged."""
        task = self._tasks[name]
        if status.preparing is not None:
            self._progress.update(task, total=1.0, completed=status.prepared or 0.0, epoch=status.preparing)
            return
        if status.state is RunState.MEASURING and status.num_images:
            done = f"{status.images:,}/{status.num_images:,} images"
            self._progress.update(task, total=status.num_images, completed=status.images, epoch=done, numbers="")
            return
        if status.state is not RunState.TRAINING or not status.steps_per_epoch:
            return
        epochs_done = max(status.epoch - 1, 0)
        self._progress.update(
            task,
            total=status.num_epochs * status.steps_per_epoch,
            completed=epochs_done * status.steps_per_epoch + status.step,
            epoch=f"epoch {status.epoch}/{status.num_epochs}",
            numbers=_numbers(status),
        )

    def refresh(self) -> None:
        """Draw the bars as they are now."""
        self._progress.refresh()

    def print(self, text: str) -> None:
        """Print a text above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def remove(self, name: str) -> None:
        """Remove the bar of a run; the last one takes the whole display with it."""
        if (task := self._tasks.pop(name, None)) is None:
            return
        self._progress.update(task, visible=False)
        self._progress.remove_task(task)
        if not self._tasks:
            self._progress.stop()


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


def _numbers(status: Status) -> str:
    parts = []
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    if status.score is not None:
        parts.append(f"{status.score_name} {status.score:.1f}%")
    if status.images_per_s is not None:
        parts.append(f"{status.images_per_s:,.0f} images/s")
    if status.lr is not None:
        parts.append(f"lr {status.lr:.3g}")
    if status.eta_s is not None:
        parts.append(f"{duration(status.eta_s)} left")
    return "  ".join(parts)
