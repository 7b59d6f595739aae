"""What a person sees on the terminal while trainers run, and tables."""

import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.cli.flags import with_flags
from accel_trainer.core.text import duration, printable
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.control import Pause
from accel_trainer.queue.dependencies import Unmet, describe_unmet
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.log import LogTail
from accel_trainer.run.status import RunState, Status

if TYPE_CHECKING:
    from rich.progress import TaskID


SHOW_EVERY_S = 0.3


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns; numbers to the right, everything else to the left, None as '-'."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    right = [
        all(isinstance(row[i], (int, float, type(None))) for row in rows) and bool(rows) for i in range(len(header))
    ]
    lines = []
    for line in [list(header), *cells]:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.2f}"
        case int():
            return f"{value:,}"
        case _:
            return printable(str(value)).replace("\n", r"\n")


@dataclass
class _Shown:
    """A trainer on the terminal."""

    run: RunFolder
    tail: LogTail


class TerminalWatcher:
    """Shows the logs of trainers and, on a terminal, a progress bar for each; says how jobs ended.

    Where several train side by side, each line begins with the name of its job.
    """

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._trainers: dict[str, _Shown] = {}
        self._shown = 0.0
        self._bars: _Bars | None = None
        self._is_waiting = self._is_stopping = False

    # -- an attempt -----------------------------------------------------------------------------------------

    def started(self, name: str, run: RunFolder, log: Path) -> None:
        self._is_waiting = False
        self._say(f"\n{name}: training in {run.path} (all output: {log})")
        self._trainers[name] = _Shown(run, LogTail(run.log))
        if sys.stdout.isatty():
            if self._bars is None:
                self._bars = _Bars()
            self._bars.add(name, shows_name=self._several)

    def tick(self) -> None:
        if time.monotonic() - self._shown >= SHOW_EVERY_S:
            self._shown = time.monotonic()
            for name in self._trainers:
                self._show(name)

    def _show(self, name: str) -> None:
        shown = self._trainers.get(name)
        if shown is None:
            return
        before = f"  {name}: " if self._several else "  "
        for line in shown.tail.new_lines():
            self._say(f"{before}{line}")
        if self._bars is not None and (status := shown.run.read_status()) is not None:
            with suppress(OSError, OverflowError):
                self._bars.show(name, status)

    def stopping(self, name: str) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._say("stopping: the step is finished and the state saved; once more stops at once")

    def cutting(self, name: str, reason: str) -> None:
        self._show(name)
        self._say(f"{name}: {reason}" if self._several else reason)

    def ended(self, name: str, ending: Outcome, log: Path) -> None:
        self._show(name)
        self._trainers.pop(name, None)
        if self._bars is not None:
            with suppress(OSError):
                self._bars.remove(name)
            if not self._trainers:
                self._bars = None
        why = "" if ending.reason is None else f" ({ending.reason})"
        match ending.kind:
            case OutcomeKind.DONE:
                self._say(f"{name}: done")
            case OutcomeKind.INTERRUPTED:
                self._say(f"{name}: stopped{why}; it goes on where it was when it is run again")
            case OutcomeKind.HELD:
                self._say(f"{name}: stopped{why}; `accel-train release {name}` lets it go on where it was")
            case OutcomeKind.SUPERSEDED:
                self._say(f"{name}: given up{why}; what this trainer did counts no more")
            case OutcomeKind.FAILED:
                self._say(f"{name}: failed: {ending.reason}\n  log: {log}")

    # -- a queue --------------------------------------------------------------------------------------------

    def found(self, good: int, wrong: int, unchecked: int) -> None:
        refused = f", {wrong} refused" if wrong else ""
        more = f", {unchecked} not checked yet: they are while the first ones train" if unchecked else ""
        self._say(f"{good} job{'' if good == 1 else 's'} to run{refused}{more}")

    def rejected(self, job: QueuedJob, reason: str) -> None:
        for line in reason.splitlines():
            self._say(f"refused: {line}")

    def reclaimed(self, job: QueuedJob) -> None:
        self._say(f"{job.name}: its runner died; it goes on where it was")

    def blocked(self, name: str, missing: Unmet) -> None:
        self._say(f"{name}: {describe_unmet(missing)}")

    def too_large(self, name: str, num_processes: int) -> None:
        self._say(f"{name}: wants {num_processes} GPUs, which this runner has not")

    def occupied(self, gpus: Collection[str]) -> None:
        one = len(gpus) == 1
        self._say(f"GPU{'' if one else 's'} {', '.join(gpus)} {'is' if one else 'are'} used by others: waiting")

    def resting(self, name: str, seconds: float, number: int, retries: int) -> None:
        self._say(f"{name}: is tried again in {duration(seconds)} (retry {number} of {retries})")

    def paused(self, pause: Pause) -> None:
        host = "" if pause.host is None else f" --host {pause.host}"
        self._say(f"{pause}; `accel-train resume{host}` ends that")

    def waiting(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._say("waiting for jobs; Ctrl-C ends this")

    # -- jobs in Slurm --------------------------------------------------------------------------------------

    def handed_over(self, name: str, job_id: int) -> None:
        self._is_waiting = False
        self._say(f"{name}: handed to Slurm, job {job_id}")

    def in_slurm(self, name: str, told: str) -> None:
        self._say(f"{name}: {told}")

    def over(self, name: str, state: JobState | None, reason: str | None) -> None:
        why = "" if reason is None else f": {reason}"
        self._say(f"{name}: {'gone' if state is None else state}{why}")

    def trouble(self, problem: str) -> None:
        self._say(f"{problem}; it is tried again")

    def _say(self, text: str) -> None:
        text = printable(with_flags(text))
        with suppress(OSError):  # the terminal has gone; the training has not
            if self._bars is not None:
                self._bars.print(text)
            else:
                print(text, flush=True)


class _Bars:
    """The progress of each run over all its epochs."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Progress = Progress(
            TextColumn("  {task.description}{task.fields[epoch]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}", markup=False),
            refresh_per_second=4,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def add(self, name: str, *, shows_name: bool) -> None:
        description = f"{printable(name)}: " if shows_name else ""
        self._tasks[name] = self._progress.add_task(description, total=None, epoch="starting", numbers="")

    def show(self, name: str, status: Status) -> None:
        task = self._tasks[name]
        if status.preparing is not None:
            self._progress.update(task, total=1.0, completed=status.prepared or 0.0, epoch=status.preparing)
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

    def print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def remove(self, name: str) -> None:
        """The last one takes the whole display with it."""
        if (task := self._tasks.pop(name, None)) is None:
            return
        self._progress.update(task, visible=False)
        self._progress.remove_task(task)
        if not self._tasks:
            self._progress.stop()


@contextmanager
def preparation_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, from the first time that it is told (done, total)."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())

    def tell(done: int, total: int) -> None:
        if not bar.tasks:
            bar.add_task(what, total=total)
            bar.start()
        bar.update(bar.tasks[0].id, completed=done)

    try:
        yield tell
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
