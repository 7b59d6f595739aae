"""One bar for a training, at a terminal or in a notebook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module

from accel_trainer.run.status import Status

Show = Callable[[Status], None]


@contextmanager
def progress_bar(name: str, *, shown: bool) -> Iterator[Show]:
    """A function to show a status by. Nothing is shown where output goes to a file."""
    from rich.console import Console

    console = Console()
    if shown and console.is_jupyter:
        yield _in_notebook(name)
    elif shown and console.is_terminal:
        with _at_terminal(name) as show:
            yield show
    else:
        yield lambda status: None


@contextmanager
def _at_terminal(name: str) -> Iterator[Show]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text, scores = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[scores]"))
    with Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), scores) as progress:
        task = progress.add_task(name, total=None, scores="")

        def show(status: Status) -> None:
            progress.update(
                task, description=_description(name, status), total=_steps(status), completed=_steps_done(status),
                scores=_scores(status),
            )  # fmt: skip

        yield show


def _in_notebook(name: str) -> Show:
    """One output that changes, as every notebook can show it; rich needs ipywidgets, and leaves nothing in the file."""
    handle = import_module("IPython.display").display(_output(name, None, 0, ""), raw=True, display_id=True)

    def show(status: Status) -> None:
        output = _output(_description(name, status), _steps(status), _steps_done(status), _scores(status))
        handle.update(output, raw=True)

    return show


def _output(description: str, total: int | None, done: int, scores: str) -> dict[str, str]:
    """As text and as HTML, by their media types."""
    numbers = "" if total is None else f"{done}/{total}"
    bar = f'<progress value="{done}" max="{total}"></progress>' if total is not None else "<progress></progress>"
    html = " ".join(filter(None, (escape(description), bar, numbers, escape(scores))))
    return {"text/plain": "  ".join(filter(None, (description, numbers, scores))), "text/html": f"<div>{html}</div>"}


def _steps(status: Status) -> int | None:
    return status.num_epochs * status.steps_per_epoch or None


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
