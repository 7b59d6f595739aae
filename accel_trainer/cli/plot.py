"""The verb `plot`: curves of trained runs, or of groups of them, as a picture for a paper."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.cli.app import MISTAKE, app, echo, print_problems, print_warnings, write_file
from accel_trainer.cli.run_rows import FoundRuns, RunsArgument, WhereOption, fitting, read_runs
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed

if TYPE_CHECKING:
    from accel_trainer.report.curves import Axis, Curve, History
    from accel_trainer.report.groups import Group

# In inches.
SMALLEST, LARGEST = 1.0, 100.0


@app.command()
def plot(
    runs: RunsArgument,
    x: Annotated[str, typer.Option("--x", help="Across: epoch, seconds or step.")] = "epoch",
    y: Annotated[
        str | None,
        typer.Option(
            "--y",
            help="Metrics of performance.csv, such as acc1,train/loss; a panel for each.",
            show_default="the primary metric",
        ),
    ] = None,
    where: WhereOption = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="A line for the mean of runs with the same in these columns, and a band of one standard deviation; "
            "all-but-seed: over replicates.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Picture to write; its ending says what: .pdf, .svg or .png.")
    ] = Path("curves.pdf"),
    log_y: Annotated[bool, typer.Option("--log-y", help="Metrics on logarithmic axes.")] = False,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="W,H", help="Width and height in inches.", show_default="a column: 3.5 wide"),
    ] = None,
    style: Annotated[
        Path | None,
        typer.Option("--style", help="Style sheet of matplotlib, laid over this program's own.", show_default=False),
    ] = None,
) -> None:
    """Draw a metric of trained runs over epochs: a line for each run, or the mean of each group with its standard
    deviation."""
    from accel_trainer.report.curves import History, axis_of
    from accel_trainer.report.curves_figure import MOST_NAMED, Look, curves_figure, names_of
    from accel_trainer.report.style import find_style, save, styled

    suffix, look, sheet = _suffix(out), Look(log_y, _size(size)), find_style(style)
    found = read_runs(runs)
    rows = {id(row) for row in fitting(found.rows, where)}
    histories = [History.of(run, row) for run, row in zip(found.folders, found.rows, strict=True) if id(row) in rows]
    if histories:
        axis = axis_of(x, histories)
        groups = None if group_by is None else _groups(histories, group_by)
        panels = {metric: _curves(histories, groups, metric, axis) for metric in _metrics(y, histories, found)}
        if (count := len(names_of(panels))) > MOST_NAMED:
            print_warnings([f"{count} lines are too many to be named; --group-by draws means, --where leaves runs out"])
        picture = io.BytesIO()
        with styled(sheet):
            save(curves_figure(panels, axis, look), picture, suffix)
        write_file(out, picture.getvalue())
        echo(f"wrote {out}")
    print_problems(found.problems)
    if found.problems or not histories:
        raise typer.Exit(MISTAKE)


def _suffix(out: Path) -> str:
    from accel_trainer.report.style import SUFFIXES

    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        endings = listed(f".{one}" for one in SUFFIXES)
        raise UserError(f"{out}: a picture's name ends in one of {endings}", option="out")
    return suffix


def _size(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        width, height = map(float, text.split(","))
    except ValueError:
        width = height = math.nan
    if not all(SMALLEST <= side <= LARGEST for side in (width, height)):
        raise UserError(
            f"{text!r} is no size; give width and height in inches, each from {SMALLEST:g} to {LARGEST:g}, such as 7,3",
            option="size",
        )
    return width, height


def _metrics(y: str | None, histories: "Sequence[History]", found: FoundRuns) -> list[str]:
    """Those that were named, or the primary ones. Raises UserError for one that no run has measured."""
    from accel_trainer.report.columns import split_names
    from accel_trainer.report.compare import refuse_unknown_metrics
    from accel_trainer.report.curves import primary_metrics

    names = list(dict.fromkeys(split_names(y or ""))) or primary_metrics(histories)
    if not names:
        raise UserError(f"no epoch has ended yet of {listed((one.row.job for one in histories), 5)}")
    refuse_unknown_metrics(
        [name for name in names if not any(one.values(name) for one in histories)], found.folders, option="y"
    )
    return names


def _groups(histories: "Sequence[History]", names: str) -> "list[Group]":
    from accel_trainer.report.columns import split_names
    from accel_trainer.report.groups import grouped
    from accel_trainer.report.tables import doubts_of_groups

    groups = grouped([one.row for one in histories], split_names(names))
    print_warnings(doubts_of_groups(groups, ()))
    return groups


def _curves(
    histories: "Sequence[History]", groups: "Sequence[Group] | None", metric: str, axis: "Axis"
) -> "list[Curve]":
    """Of each run or group; what is left out is said. Raises UserError where nothing is left."""
    from accel_trainer.report.curves import curves_of_groups, curves_of_runs, doubts_of_curves

    if groups is None:
        missing = [one.row.job for one in histories if not one.values(metric)]
        print_warnings([f"without {metric}, and left out: {listed(missing, 5)}"] if missing else [])
        curves = curves_of_runs(histories, metric, axis)
    else:
        by_row: Mapping[int, History] = {id(one.row): one for one in histories}
        print_warnings(doubts_of_curves(groups, by_row, metric))
        curves = curves_of_groups(groups, by_row, metric, axis)
    if not curves:
        raise UserError(f"there is no {metric!r} to draw", option="y")
    return curves
