"""What a shell completes beside verbs and flags: names of jobs, models and parameters, job files, runs.

What fails is silent.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_path
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder


def names_of_jobs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Jobs of the queue that the command line names, or of that of the current folder."""
    return [name for name in _names(ctx) if name.startswith(incomplete)]


def files_or_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """JSON files and folders in the place that a word begins to name; without a folder in it, jobs of the queue too."""
    files = list(_files(incomplete))
    return files if os.sep in incomplete else [*names_of_jobs(ctx, incomplete), *files]


def runs(incomplete: str) -> list[str]:
    """Run folders, or folders that lead to some: in the place that a word begins to name, else below models/."""
    start = _place(incomplete) if os.sep in incomplete else Path("models")
    found = list[str]()
    with suppress(OSError, UserError):
        for folder in sorted(path for path in expand_path(start).iterdir() if path.is_dir()):
            is_run = RunFolder(folder).config.is_file()
            found.append(f"{start / folder.name}{'' if is_run else os.sep}")
    return [place for place in found if place.startswith(incomplete)]


def architectures(incomplete: str) -> list[str]:
    """Models of torchvision and of the zoo, by their names in a job."""
    from accel_trainer.zoo.registry import names

    return [name for name in names() if name.startswith(incomplete)]


def parameters(incomplete: str) -> list[str]:
    """Parameters of a job, and those of its objects by their paths, each with the sign before its values."""
    from accel_trainer.config.derived import MARKS

    return [f"{key}=" for key in MARKS if key.startswith(incomplete)]


def _names(ctx: typer.Context) -> list[str]:
    queue: Any = ctx.params.get("queue") or Path("training_queue")
    with suppress(OSError, UserError):
        return sorted(QueueStore(expand_path(queue)).states())
    return []


def _place(incomplete: str) -> Path:
    """The folder that a word names, up to its last slash."""
    folder, slash, _ = incomplete.rpartition(os.sep)
    return Path(folder or slash or ".")


def _files(incomplete: str) -> Iterator[str]:
    with suppress(OSError, UserError):
        for path in sorted(expand_path(_place(incomplete)).iterdir()):
            name = f"{incomplete.rpartition(os.sep)[0]}{os.sep}{path.name}" if os.sep in incomplete else path.name
            if name.startswith(incomplete) and not path.name.startswith("."):
                if path.is_dir():
                    yield f"{name}{os.sep}"
                elif path.suffix == ".json":
                    yield name
