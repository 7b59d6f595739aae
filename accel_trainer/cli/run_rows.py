"""Which runs `compare` and `plot` are about: the folders, their rows, and the options that choose and group them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.cli.app import echo, print_warnings
from accel_trainer.cli.completion import runs
from accel_trainer.core.errors import UserError
from accel_trainer.run.find import runs_below
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import status_damage

if TYPE_CHECKING:
    from accel_trainer.report.compare import At, Comparison

RunsArgument = Annotated[
    list[Path],
    typer.Argument(help="Run folders, or folders that runs are below.", show_default=False, autocompletion=runs),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only runs like lr>=0.1, state!=failed, architecture=resnet18,vgg11 or job~digits-*; may be given again.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class FoundRuns:
    """Run folders, each with its row, and what is wrong with those that cannot be read."""

    folders: "list[RunFolder]"
    rows: "list[Comparison]"
    problems: list[str]


def read_runs(paths: Sequence[Path], metrics: Sequence[str] = (), at: "At | None" = None) -> FoundRuns:
    """The runs in and below some folders, each once."""
    from accel_trainer.report.compare import BEST, compare

    seen, found = set[Path](), FoundRuns([], [], [])
    for path in paths:
        try:
            # Of a folder without any it is said what it is.
            for run in list(runs_below(path)) or [RunFolder(path)]:
                if run.path.resolve() in seen:
                    continue
                seen.add(run.path.resolve())
                rows = compare([run], metrics, at or BEST)
                found.folders.append(run)
                found.rows.extend(rows)
                print_warnings(damage for damage in [status_damage(run)] if damage is not None)
        except UserError as error:
            found.problems.extend(error.problems)
    return found


def fitting(rows: "Sequence[Comparison]", where: Sequence[str] | None) -> "list[Comparison]":
    """The rows of which all conditions hold; if none does, that is said. Raises UserError."""
    from accel_trainer.report.where import chosen

    found = chosen(rows, where or []) if rows else []
    if rows and not found:
        echo(f"none of the {len(rows)} runs fits {' and '.join(where or [])}", err=True)
    return found
