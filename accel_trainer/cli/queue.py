"""The verb that fills a queue."""

from typing import Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    MISTAKE,
    AllowOption,
    Files,
    QueueOption,
    app,
    tell,
)
from accel_trainer.config import job_name
from accel_trainer.config.parse import read_bytes
from accel_trainer.core.allow_imports import allow_imports
from accel_trainer.launch.command import Flags
from accel_trainer.queue.store import Queue
from accel_trainer.verdicts import duplicates, make_check, verdict


@app.command()
def add(
    files: Files,
    queue: QueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    force: Annotated[bool, typer.Option("--force", help="Also a job whose name or content is in the queue.")] = False,
) -> None:
    """Check job files and put copies of them into the queue."""
    allow_imports(allow)
    store = Queue(queue)
    store.create()
    check = make_check(Flags())
    wrong, coming = False, {file.stem for file in files}
    for file in files:
        _, problems = verdict(file, check, store, coming)
        if not problems and not force:
            problems = duplicates(file, store)
        tell(problems)
        wrong |= bool(problems)
        if not problems:
            path = store.add(job_name(file), read_bytes(file), replace=force)
            typer.echo(f"added {path}")
    if wrong:
        raise typer.Exit(MISTAKE)
