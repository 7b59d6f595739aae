"""The verb that lists the jobs of a queue."""

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from accel_trainer.cli.app import DEFAULT_QUEUE, JsonOption, QueueOption, app, echo_text, existing_queue
from accel_trainer.cli.console import output_error
from accel_trainer.cli.status_notes import notes_of
from accel_trainer.queue.layout import Ending, JobState
from accel_trainer.queue.status_table import JobStatus, damaged_records, status_rows
from accel_trainer.queue.store import QueueStore

# Rows of each state that are over or wait, in a table.
FEW = 20
LOOK_EVERY_S = 2.0


@app.command()
def status(
    queue: QueueOption = DEFAULT_QUEUE,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep it up to date, scrolled and filtered by keys; q or Ctrl-C ends it."),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help=f"More than {FEW} jobs of a state.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the jobs of the queue: how far they are, where, and since when."""
    store = existing_queue(queue)
    if watch and not as_json:
        from accel_trainer.cli.full_screen import can_be_filled

        if can_be_filled():
            from accel_trainer.cli.status_screen import watch_status

            watch_status(store)
            return
    while True:
        if as_json:
            echo_text(json.dumps([asdict(row) for row in status_rows(store)], indent=2))
        else:
            _print_table(store, everything)
        if not watch or output_error() is not None:
            return
        time.sleep(LOOK_EVERY_S)


def _print_table(queue: QueueStore, everything: bool) -> None:
    from accel_trainer.cli.colors import has_colors, state_painter
    from accel_trainer.cli.status_cells import COLUMNS, row_texts
    from accel_trainer.cli.tables import table

    rows, wanted = list(status_rows(queue, most=None if everything else FEW)), has_colors()
    if not rows:
        echo_text("\n".join([f"no jobs in {queue.folder}", *notes_of(queue, damaged_records(queue))]))
        return
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
    header = (COLUMNS[0], *["kind"] * has_kinds, *COLUMNS[1:])
    cells = [(text[0], *[row.kind] * has_kinds, *text[1:]) for row in shown for text in [row_texts(row)]]

    typer.echo(
        table(header, cells, paint=state_painter(wanted=wanted)), color=wanted
    )  # its cells are printable already
    rest = [*more, *notes_of(queue, damaged_records(queue, {row.job for row in shown}))]
    if rest:
        echo_text("\n".join(rest))
