"""The verb for job files of the program that this one is modeled on."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from accel_trainer.cli.app import MISTAKE, app, count_of, echo, echo_text, print_problems
from accel_trainer.config.file_names import job_name
from accel_trainer.config.job_text import MAX_BYTES, read_bytes
from accel_trainer.config.migration.migrate import Migration, migrate_content
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import write_new

STANDARD_INPUT = Path("-")


@app.command()
def migrate(
    files: Annotated[
        list[Path],
        typer.Argument(help="Old job files, folders of such, or - for standard input.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for today's files, which keep their names.", show_default=False),
    ] = None,
) -> None:
    """Translate job files of the older program into today's, and say each change with its reason.

    Old files are never changed. One job is printed; several are written to the folder --out. What cannot be translated
    without a guess is named, and nothing is written for that file.
    """
    paths = list(_files(files))
    if out is None and len(paths) != 1:
        raise UserError(f"there are {count_of(len(paths), 'file')}: name the folder to write to", option="out")
    num_refused = 0
    for path in paths:
        try:
            _migrate(path, out)
        except UserError as error:
            print_problems(error.problems)
            num_refused += 1
    if len(paths) > 1:
        echo(f"{count_of(len(paths) - num_refused, 'job')} in {out}, {num_refused:,} refused", err=True)
    if num_refused:
        raise typer.Exit(MISTAKE)


def _files(given: list[Path]) -> Iterator[Path]:
    """The files that are meant; of a folder its job files. Raises UserError."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.glob("*.json") if not file.name.startswith("."))
        if not inside:
            raise UserError("has no files whose names end in .json", where=path)
        yield from inside


def _migrate(path: Path, out: Path | None) -> None:
    if path == STANDARD_INPUT:
        name, where, content = "job", "standard input", sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"is larger than {MAX_BYTES:,} bytes", where=where)
    else:
        name, where, content = job_name(path), str(path), read_bytes(path)
    migration = migrate_content(content, name, where)
    if out is None:
        _report(where, migration)
        echo_text(_today(migration))
        return
    target = out / f"{name}.json"
    # What is today's already stays as it is, to the byte.
    written = content if migration.is_todays else f"{_today(migration)}\n".encode()
    _write(target, written)
    _report(where, migration)
    echo(f"wrote {target}", err=True)


def _today(migration: Migration) -> str:
    return json.dumps(dict(migration.job), indent=4, ensure_ascii=False)


def _write(target: Path, content: bytes) -> None:
    """A file that is there with other content is not replaced. Raises UserError."""
    try:
        if os.path.lexists(target):
            if target.is_symlink() or not target.is_file() or target.read_bytes() != content:
                raise UserError("exists already with other content", where=target, hint="choose another folder `out`")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        write_new(target, content)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=target) from error


def _report(where: str, migration: Migration) -> None:
    if migration.is_todays:
        echo(f"{where}: is today's already", err=True)
    for change in migration.changes:
        echo(f"{where}: {change}", err=True)
    for note in migration.notes:
        echo(f"{where}: note: {note}", err=True)
