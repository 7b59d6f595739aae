"""One bar for a training, at a terminal or in a notebook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from accel_trainer.run.status import Status


@contextmanager
def progress_bar(name: str, *, shown: bool) -> Iterator[Callable[[Status], None]]:
    """A function to show a status by. Nothing is shown where output goes to a file."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    if not shown or not (console.is_terminal or console.is_jupyter):
        yield lambda status: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[scores]}"), console=console) as progress:
        task = progress.add_task(name, total=None, scores="")

        def show(status: Status) -> None:
            total = status.num_epochs * status.steps_per_epoch or None
            described = _description(name, status)
            progress.update(
                task, description=described, total=total, completed=_steps_done(status), scores=_scores(status)
            )

        yield show


def _steps_done(status: Status) -> int:
    return max(status.global_step, status.epoch * status.steps_per_epoch if status.step == 0 else 0)


def _description(name: str, status: Status) -> str:
    if status.preparing is not None:
        return f"{name}: {status.preparing}"
    if not status.num_epochs:
        return f"{name}: {status.state}"
    return f"{name}: epoch {status.epoch}/{status.num_epochs}"


def _scores(status: Status) -> str:
    """`loss 0.123, acc1 98.7, best acc1 97.5`"""
    parts = [f"loss {status.loss:.4g}"] if status.loss is not None else []
    parts += [f"{status.score_name} {status.score:.2f}"] if status.score is not None else []
    parts += [f"best {status.primary_metric} {status.best:.4g}"] if status.best is not None else []
    return ", ".join(parts)
