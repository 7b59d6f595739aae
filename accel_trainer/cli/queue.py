"""The verbs that fill a queue and look at it."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    MISTAKE,
    AllowOption,
    Files,
    JsonOption,
    QueueOption,
    app,
    tell,
)
from accel_trainer.config import Job, job_name, read_job
from accel_trainer.config.reading import read_bytes
from accel_trainer.errors import UserError
from accel_trainer.permission import allow_imports
from accel_trainer.queue.launcher import Flags
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import JobState, Queue, QueuedJob, QueueUnusable
from accel_trainer.queue.waiting import Needs, words
from accel_trainer.runs import RunFolder
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


@app.command()
def status(queue: QueueOption = DEFAULT_QUEUE, as_json: JsonOption = False) -> None:
    """List the jobs of the queue and how far they are."""
    from accel_trainer.display import table

    store = Queue(queue)
    if not store.folder.is_dir():
        raise QueueUnusable(f"there is no queue in {queue}; `accel-train add` makes one")
    states = store.states()
    rows = [_status_row(store, job, states) for state in JobState for job in store.jobs(state)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo(f"no jobs in {queue}")
    else:
        header = ("job", "state", "epoch", "best", "where", "note")
        typer.echo(table(header, [[row[key] for key in header] for row in rows]))


def _status_row(queue: Queue, queued: QueuedJob, states: Mapping[str, JobState]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "job": queued.name,
        "state": queued.state.value,
        "epoch": None,
        "best": None,
        "where": None,
    }
    row["note"] = (queue.reason(queued) or "").split("\n")[0] or None
    if queued.owner is not None:
        row["where"] = queued.owner.host
        row["note"] = "its runner died; run-queue takes it up" if queued.owner.is_dead() else None
    try:
        job = read_job(queued.path, queued.name)
    except UserError:
        return row
    if queued.state is JobState.PENDING:
        row["note"] = _why_pending(queue, queued, job, states)
    said = RunFolder(job.run_path).read_status()
    if said is not None and queued.state in (JobState.RUNNING, JobState.DONE, JobState.FAILED):
        row["epoch"] = f"{said.epoch}/{said.num_epochs}"
        row["best"] = said.best
    return row


def _why_pending(queue: Queue, queued: QueuedJob, job: Job, states: Mapping[str, JobState]) -> str | None:
    if missing := Needs.of(job).missing(states):
        return words(missing)
    if (failures := Retries(queue).of(queued)) is not None:
        return f"has failed and is tried again (retry {failures.number} of {job.retries}): {failures.reason}"
    return None
