"""The verb that prints what the attempts at a job have printed."""

import codecs
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    QueueOption,
    app,
    echo_log,
    echo_text,
    existing_queue,
    find_job,
)
from accel_trainer.cli.completion import names_of_jobs
from accel_trainer.cli.console import output_error
from accel_trainer.core.blocks import blocks, read_block, start_of_last_lines
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.queue.store import QueueStore

LOOK_EVERY_S = 0.2


@app.command()
def logs(
    job: Annotated[str, typer.Argument(help="Name of a job.", show_default=False, autocompletion=names_of_jobs)],
    queue: QueueOption = DEFAULT_QUEUE,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it grows, until the job is over.")] = False,
    lines: Annotated[int | None, typer.Option("-n", "--lines", min=0, help="Only the last ones.")] = None,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", min=1, help="Of this attempt; by default the newest.", show_default=False),
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="Only say which attempts there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --list: print JSON.")] = False,
    no_pager: Annotated[
        bool, typer.Option("--no-pager", help="Print it also where it is longer than the terminal.")
    ] = False,
) -> None:
    """Print all output of a job's newest attempt, or of another one.

    At a terminal what is longer than that is shown by $PAGER, or `less -R`.
    """
    store = existing_queue(queue)
    name = find_job(store, job).name
    if as_json and not as_list:
        raise UserError("only with `list`", option="json")
    if as_list:
        _print_attempts(store.attempt_logs(name), as_json=as_json)
        return
    if follow and attempt is not None:
        raise UserError("not with `attempt`: only the newest one grows", option="follow")
    path = store.newest_log(name) if attempt is None else _log_of(store, name, attempt)
    if path is None and not follow:
        raise UserError(f"{name}: it was not started yet, so there is no log of it")
    position = start_of_last_lines(path, lines) if path is not None and lines is not None else 0
    if path is not None and not follow and not no_pager and sys.stdout.isatty():
        from accel_trainer.cli.pager import is_longer_than_screen, show_paged

        if is_longer_than_screen(path, position) and show_paged(_whole(path, position)):
            return
    for part in _growing(store, name, path, position) if follow else _whole(path, position):
        echo_log(part)
        if output_error() is not None:  # nobody reads any more
            return


def _log_of(store: QueueStore, name: str, attempt: int) -> Path:
    """Raises UserError where there was no such attempt, or its log was removed."""
    logs = store.attempt_logs(name)
    if attempt not in logs:
        there = f"there are: {listed(map(str, logs))}" if logs else "it was not started yet"
        raise UserError(f"{name} has no log of attempt {attempt}; {there}", option="attempt")
    return logs[attempt]


def _print_attempts(logs: Mapping[int, Path], *, as_json: bool) -> None:
    from accel_trainer.cli.tables import table

    found = [(number, path, path.stat()) for number, path in logs.items()]
    if as_json:
        rows = [
            {"attempt": number, "log": str(path), "bytes": about.st_size, "written": about.st_mtime}
            for number, path, about in found
        ]
        echo_text(json.dumps(rows, indent=2))
        return
    written = "%Y-%m-%d %H:%M:%S"
    cells = [
        (number, time.strftime(written, time.localtime(about.st_mtime)), f"{about.st_size / 1000:,.1f} kB", path)
        for number, path, about in found
    ]
    echo_text(table(("attempt", "last written", "size", "log"), cells) if cells else "no attempt yet")


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
            time.sleep(LOOK_EVERY_S)


def _decoder() -> codecs.IncrementalDecoder:
    """A character may have begun in one block and end in the next."""
    return codecs.getincrementaldecoder("utf-8")("surrogateescape")
