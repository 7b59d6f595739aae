"""The verbs that look at a queue."""

import codecs
import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    SOME_FAILED,
    JsonOption,
    QueueOption,
    app,
    echo,
    echo_log,
    echo_text,
    existing_queue,
    find_job,
)
from accel_trainer.cli.console import output_error
from accel_trainer.cli.slurm_claims import SlurmDesk
from accel_trainer.core.blocks import blocks, read_block, start_of_last_lines
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import duration, one_line
from accel_trainer.queue.control import Pauses
from accel_trainer.queue.layout import Ending, JobState
from accel_trainer.queue.status_table import JobStatus, damaged_records, status_rows
from accel_trainer.queue.store import QueueStore

# Rows of each state that are over or wait, in a table.
FEW = 20
LOOK_EVERY_S, ASK_SLURM_EVERY_S = 2.0, 15.0


@app.command()
def status(
    queue: QueueOption = DEFAULT_QUEUE,
    watch: Annotated[bool, typer.Option("--watch", help="Again every two seconds, until Ctrl-C.")] = False,
    everything: Annotated[bool, typer.Option("--all", help=f"More than {FEW} jobs of a state.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the jobs of the queue: how far they are, where, and since when."""
    store = existing_queue(queue)
    while True:
        text = (
            json.dumps([asdict(row) for row in status_rows(store)], indent=2) if as_json else _table(store, everything)
        )
        if watch and sys.stdout.isatty():
            typer.echo("\x1b[H\x1b[2J", nl=False)  # to the upper left corner, and clear what is below
        echo_text(text)
        if not watch or output_error() is not None:
            return
        time.sleep(LOOK_EVERY_S)


def _table(queue: QueueStore, everything: bool) -> str:
    from accel_trainer.cli.tables import table

    rows = list(status_rows(queue, most=None if everything else FEW))
    if not rows:
        return "\n".join([f"no jobs in {queue.folder}", *_notes(queue, ())])
    shown: list[JobStatus] = []
    more: list[str] = []
    for state in (JobState.RUNNING, JobState.PENDING, JobState.HELD, JobState.FAILED, JobState.DONE):
        together = (state, Ending.CANCELED) if state is JobState.FAILED else (state,)
        of_state = [row for row in rows if row.state in together]
        few = of_state if everything or state is JobState.RUNNING else of_state[:FEW]
        shown += few
        if len(few) < len(of_state):
            more.append(f"and {len(of_state) - len(few):,} more that are {' or '.join(together)} (--all shows them)")
    has_kinds = any(row.kind == "evaluation" for row in shown)
    header = ("job", *["kind"] * has_kinds, "state", "epoch", "best", "where", "elapsed", "left", "note")
    cells = [_cells(row, has_kinds=has_kinds) for row in shown]
    return "\n".join([table(header, cells), *more, *_notes(queue, {row.job for row in shown})])


def _notes(queue: QueueStore, names: Collection[str]) -> list[str]:
    """What is to be known of a queue beside its jobs, of which those of these names are shown."""
    strays = [f"not a job: {one_line(path)}: {one_line(hint)}" for path, hint in queue.paths.strays().items()]
    damaged = damaged_records(queue, names)
    records = [f"{one_line(path)} is damaged{_what_now(queue, path)}" for path in damaged[:FEW]]
    more = [f"and {len(damaged) - FEW} more records that are damaged"] if len(damaged) > FEW else []
    return [*strays, *map(str, Pauses(queue).all()), *records, *more]


def _what_now(queue: QueueStore, record: Path) -> str:
    if record.parent == queue.paths.moves:
        return ": a job that was being moved to another queue stays where it is until somebody has looked there"
    return " and counts as none; it can be removed"


def _cells(row: JobStatus, *, has_kinds: bool) -> Sequence[object]:
    epoch = None if row.epoch is None else f"{row.epoch}/{row.num_epochs}"
    if row.num_images:
        epoch = f"{row.images:,}/{row.num_images:,} images"
    best = None if row.best is None else f"{row.best:.4g} {row.metric or ''}".strip()
    gpus = f" gpu {','.join(row.devices)}" if row.devices else ""
    where = None if row.host is None else f"{row.host}{gpus}"
    corrupt = f"{row.corrupt_images} corrupt images" if row.corrupt_images else None
    note = "; ".join(filter(None, (row.note, corrupt))) or None
    return (
        row.job,
        *[row.kind] * has_kinds,
        row.state,
        epoch,
        best,
        where,
        _time(row.elapsed_s),
        _time(row.left_s),
        note,
    )


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else duration(seconds)


@app.command()
def logs(
    job: Annotated[str, typer.Argument(help="Name of a job.", show_default=False)],
    queue: QueueOption = DEFAULT_QUEUE,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it grows, until the job is over.")] = False,
    lines: Annotated[int | None, typer.Option("-n", "--lines", min=0, help="Only the last ones.")] = None,
) -> None:
    """Print all output of a job's newest attempt."""
    store = existing_queue(queue)
    name = find_job(store, job).name
    path = store.newest_log(name)
    if path is None and not follow:
        raise UserError(f"{name}: it was not started yet, so there is no log of it")
    position = start_of_last_lines(path, lines) if path is not None and lines is not None else 0
    for part in _growing(store, name, path, position) if follow else _whole(path, position):
        echo_log(part)
        if output_error() is not None:  # nobody reads any more
            return


def _whole(path: Path | None, position: int) -> Iterator[str]:
    """What is in a log from a position on, in parts."""
    if path is not None:
        decoder = _decoder()
        yield from (decoder.decode(block) for block in blocks(path, position))
        yield decoder.decode(b"", final=True)


def _growing(store: QueueStore, name: str, path: Path | None, position: int) -> Iterator[str]:
    """The output of a job, as it comes, over all its attempts from now on."""
    decoder = _decoder()
    while True:
        state = store.states().get(name)
        if path is not None and (block := read_block(path, position)):
            position += len(block)
            yield decoder.decode(block)
        elif (newest := store.newest_log(name)) != path:
            path, position = newest, 0
            yield decoder.decode(b"", final=True)
        elif state is None or state.is_over:
            yield decoder.decode(b"", final=True)
            return
        else:
            time.sleep(LOOK_EVERY_S / 10)


def _decoder() -> codecs.IncrementalDecoder:
    """A character may have begun in one block and end in the next."""
    return codecs.getincrementaldecoder("utf-8")("surrogateescape")


@app.command()
def wait(
    jobs: Annotated[
        list[str] | None, typer.Argument(help="Names of jobs; all there are if not given.", show_default=False)
    ] = None,
    queue: QueueOption = DEFAULT_QUEUE,
) -> None:
    """Wait until jobs are over, whichever process runs them. Exit code 1: one of them has failed, or is gone."""
    store = existing_queue(queue)
    if jobs:
        left = {find_job(store, name).name for name in jobs}
    else:
        left = {name for name, state in store.states().items() if not state.is_over}
    has_failed = False
    slurm, ask_at = SlurmDesk(store), 0.0
    while left:
        if time.monotonic() >= ask_at:
            # Recorded here what Slurm has ended: no other process may be there to do so.
            slurm.settle([job for job in store.claims() if job.name in left])
            ask_at = time.monotonic() + ASK_SLURM_EVERY_S
        states = store.states()
        for name in sorted(left):
            if (state := states.get(name)) is not None and not state.is_over:
                continue
            left.discard(name)
            has_failed |= state is not JobState.DONE
            echo(f"{name}: {'gone' if state is None else state}")
        if left:
            time.sleep(LOOK_EVERY_S)
    if has_failed:
        raise typer.Exit(SOME_FAILED)
