"""What a person sees on the terminal while trainers run, and tables."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from accel_trainer.cli.flags import with_flags
from accel_trainer.core.text import duration, printable
from accel_trainer.launch.events import (
    AttemptEvent,
    AttemptFinished,
    AttemptStarted,
    AttemptStopping,
    AttemptTerminating,
    Tick,
)
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.dependencies import describe_unmet
from accel_trainer.queue.events import (
    ClaimFinished,
    Event,
    GpusInUse,
    JobBlocked,
    JobReclaimed,
    JobRejected,
    JobsFound,
    JobSubmitted,
    JobTooLarge,
    QueuePaused,
    RetryScheduled,
    SlurmJobChanged,
    SlurmJobOver,
    SlurmProblem,
    WaitingForJobs,
)
from accel_trainer.queue.finish import FinishedClaim
from accel_trainer.queue.layout import JobState
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.log import LogTail
from accel_trainer.run.status import RunState, Status, read_status

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


class Terminal:
    """Prints events: the logs of trainers, how jobs ended, and on a terminal a progress bar for each trainer.

    Where several train side by side, each line begins with the name of its job.
    """

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._trainers: dict[str, _Shown] = {}
        self._shown = 0.0
        self._bars: _Bars | None = None
        self._is_waiting = self._is_stopping = False

    def __call__(self, event: Event) -> None:
        """Print an event. Does nothing where the terminal has gone."""
        match event:
            case Tick():
                self._refresh_if_due()
            case AttemptStarted(name=name, run=run):
                self._is_waiting = False
                self._print(_line(event))
                self._add(name, run)
            case AttemptTerminating(name=name, reason=reason):
                self._refresh(name)
                self._print(_line(event) if self._several else reason)
            case AttemptFinished(name=name) | ClaimFinished(name=name):
                self._refresh(name)
                self._remove(name)
                self._print(_line(event))
            case AttemptStopping():
                if not self._is_stopping:
                    self._print(_line(event))
                self._is_stopping = True
            case WaitingForJobs():
                if not self._is_waiting:
                    self._print(_line(event))
                self._is_waiting = True
            case _:
                self._is_waiting &= not isinstance(event, JobSubmitted)
                self._print(_line(event))

    def _add(self, name: str, run: RunFolder) -> None:
        self._trainers[name] = _Shown(run, LogTail(run.log))
        if sys.stdout.isatty():
            if self._bars is None:
                self._bars = _Bars()
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

    def _refresh(self, name: str) -> None:
        """Print what is new in the log of a trainer, and move its bar."""
        shown = self._trainers.get(name)
        if shown is None:
            return
        before = f"  {name}: " if self._several else "  "
        for line in shown.tail.new_lines():
            self._print(f"{before}{line}")
        if self._bars is not None and (status := read_status(shown.run)) is not None:
            with suppress(OSError, OverflowError):
                self._bars.show(name, status)

    def _print(self, text: str) -> None:
        text = printable(with_flags(text))
        with suppress(OSError):  # the terminal has gone; the training has not
            if self._bars is not None:
                self._bars.print(text)
            else:
                print(text, flush=True)


def _line(event: Event) -> str:
    """An event in words; a line each, where there are several."""
    match event:
        case AttemptStarted() | AttemptStopping() | AttemptTerminating() | AttemptFinished() | Tick():
            return _line_of_attempt(event)
        case JobsFound() | JobRejected() | JobBlocked() | ClaimFinished() | JobReclaimed() | JobTooLarge():
            return _line_of_job(event)
        case JobSubmitted() | SlurmJobChanged() | SlurmJobOver() | SlurmProblem():
            return _line_of_slurm(event)
        case GpusInUse(gpus=gpus):
            one = len(gpus) == 1
            return f"GPU{'' if one else 's'} {', '.join(gpus)} {'is' if one else 'are'} used by others: waiting"
        case QueuePaused(pause=pause):
            host = "" if pause.host is None else f" --host {pause.host}"
            return f"{pause}; `accel-train resume{host}` ends that"
        case RetryScheduled(name=name, backoff_s=backoff_s, number=number, retries=retries):
            return f"{name}: is tried again in {duration(backoff_s)} (retry {number} of {retries})"
        case WaitingForJobs():
            return "waiting for jobs; Ctrl-C ends this"
        case _:
            assert_never(event)


def _line_of_attempt(event: AttemptEvent) -> str:
    match event:
        case AttemptStarted(name=name, run=run, log=log):
            return f"\n{name}: training in {run.path} (all output: {log})"
        case AttemptStopping():
            return "stopping: the step is finished and the state saved; once more stops at once"
        case AttemptTerminating(name=name, reason=reason):
            return f"{name}: {reason}"
        case AttemptFinished(name=name, outcome=outcome, log=log):
            return f"{name}: {_outcome(outcome, log)}"
        case Tick():
            return ""
        case _:
            assert_never(event)


def _outcome(outcome: Outcome, log: Path) -> str:
    why = "" if outcome.reason is None else f" ({outcome.reason})"
    match outcome.kind:
        case OutcomeKind.DONE:
            return "done"
        case OutcomeKind.INTERRUPTED:
            return f"stopped{why}; it goes on where it was when it is run again"
        case OutcomeKind.SUPERSEDED:
            return f"given up{why}; what this trainer did counts no more"
        case OutcomeKind.FAILED:
            return f"failed: {outcome.reason}\n  log: {log}"
        case _:
            assert_never(outcome.kind)


def _line_of_job(
    event: JobsFound | JobRejected | JobBlocked | ClaimFinished | JobReclaimed | JobTooLarge,
) -> str:
    match event:
        case JobsFound(valid=valid, invalid=invalid, unchecked=unchecked):
            refused = f", {invalid} refused" if invalid else ""
            more = f", {unchecked} not checked yet: they are while the first ones train" if unchecked else ""
            return f"{valid} job{'' if valid == 1 else 's'} to run{refused}{more}"
        case JobRejected(reason=reason):
            return "\n".join(f"refused: {line}" for line in reason.splitlines())
        case JobBlocked(name=name, unmet=unmet):
            return f"{name}: {describe_unmet(unmet)}"
        case ClaimFinished(name=name, finished=finished, log=log):
            return f"{name}: {_where_it_went(name, finished, log)}"
        case JobReclaimed(job=job):
            return f"{job.name}: its runner died; it goes on where it was"
        case JobTooLarge(name=name, num_processes=num_processes):
            return f"{name}: wants {num_processes} GPUs, which this runner has not"
        case _:
            assert_never(event)


def _where_it_went(name: str, finished: FinishedClaim, log: Path) -> str:
    if finished.state is JobState.HELD:
        return f"stopped ({finished.outcome.reason}); `accel-train release {name}` lets it go on where it was"
    return _outcome(finished.outcome, log)


def _line_of_slurm(event: JobSubmitted | SlurmJobChanged | SlurmJobOver | SlurmProblem) -> str:
    match event:
        case JobSubmitted(name=name, slurm_id=slurm_id):
            return f"{name}: handed to Slurm, job {slurm_id}"
        case SlurmJobChanged(name=name, description=description):
            return f"{name}: {description}"
        case SlurmJobOver(name=name, state=state, reason=reason):
            why = "" if reason is None else f": {reason}"
            return f"{name}: {'gone' if state is None else state}{why}"
        case SlurmProblem(problem=problem):
            return f"{problem}; it is tried again"
        case _:
            assert_never(event)


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
