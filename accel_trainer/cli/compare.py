"""The verb `compare`: a table of trained runs, of groups of them, or of what differs between them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    MISTAKE,
    JsonOption,
    app,
    count_of,
    echo,
    echo_text,
    print_problems,
    print_warnings,
)
from accel_trainer.cli.run_rows import RunsArgument, WhereOption, fitting, read_runs
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed

if TYPE_CHECKING:
    from accel_trainer.report.compare import At, Comparison
    from accel_trainer.report.tables import Table


@app.command()
def compare(
    runs: RunsArgument,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Parameters to show, such as lr,seed; by default those that differ among the runs of a sweep.",
            show_default=False,
        ),
    ] = None,
    where: WhereOption = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort", help="Columns to sort by, such as -best,lr; with - the largest first.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="Metrics of performance.csv, such as acc5,train/loss.", show_default="the primary metric"
        ),
    ] = None,
    at: Annotated[
        str, typer.Option("--at", help="Metrics after the best epoch, the final one, or that of a number.")
    ] = "best",
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="Mean, sd and 95% interval over runs with the same in these columns; all-but-seed: over replicates.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="The group whose mean each other one is compared with, by a t test.", show_default=False
        ),
    ] = None,
    diff: Annotated[bool, typer.Option("--diff", help="The parameters that differ, a column for each run.")] = False,
    output: Annotated[str, typer.Option("--format", help="table, csv, json, markdown or latex.")] = "table",
    as_json: JsonOption = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with tables and plots to this file.", show_default=False),
    ] = None,
    human: Annotated[
        list[Path] | None,
        typer.Option(
            "--human",
            help="Of the page: trials of people, as measure reads them, beside degradation curves; may be given again.",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        Path | None,
        typer.Option(
            "--queue", help="Of the page: a queue whose state it shows.", show_default=f"{DEFAULT_QUEUE} with --watch"
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page again as runs go on, until the queue is done or Ctrl-C.")
    ] = False,
) -> None:
    """Compare trained runs: a table of them, of groups with mean and interval, or of what differs between them."""
    from accel_trainer.report.columns import split_names
    from accel_trainer.report.compare import At

    form = "json" if as_json else _format(output)
    _refuse_contradictions(locals())
    metrics = split_names(metric or "")
    question = Question(runs, where or [], split_names(sort or ""), metrics, At.parse(at))
    names = split_names(group_by or "")
    if html is not None:
        from accel_trainer.cli.compare_page import PageRequest, write_pages
        from accel_trainer.report.page.gather import Wishes

        wishes = Wishes(columns, metrics, names, against, beside=html.parent)
        problems = write_pages(PageRequest(html, human or [], queue, watch), question, wishes)
    else:
        found = question.ask()
        is_for_people = form not in ("csv", "json")
        if group_by is not None:
            shown = _groups(found.rows, names, metrics, against, is_for_people=is_for_people)
        elif diff:
            shown = _differences(found.rows)
        else:
            shown = _runs(found.rows, columns, is_for_people=is_for_people)
        _print(shown, form)
        problems = found.problems
    print_problems(problems)
    if problems:
        raise typer.Exit(MISTAKE)


def _refuse_contradictions(given: Mapping[str, Any]) -> None:
    """Raises UserError for options that do not go together. given: the arguments of the verb."""
    if given["against"] is not None and given["group_by"] is None:
        raise UserError("compares groups; give `group_by` too", option="against")
    if given["diff"] and given["group_by"] is not None:
        raise UserError("compares runs, and `group_by` makes groups", option="diff")
    of_text = {"diff": given["diff"], "format": given["output"] != "table", "as_json": given["as_json"]}
    of_page = {name: given[name] for name in ("human", "queue", "watch")}
    if given["html"] is None and (named := [name for name, value in of_page.items() if value]):
        raise UserError("is of a page; give `html` too", option=named[0])
    if given["html"] is not None and (named := [name for name, value in of_text.items() if value]):
        raise UserError("prints, and `html` writes a page", option=named[0].removeprefix("as_"))


@dataclass(frozen=True)
class Found:
    """Runs that were asked for, in order, and what is wrong with those that cannot be read: a line each."""

    rows: "list[Comparison]"
    problems: list[str]


@dataclass(frozen=True)
class Question:
    """Which runs are compared, in which order, by which metrics."""

    paths: Sequence[Path]
    where: Sequence[str]
    sort: Sequence[str]
    metrics: Sequence[str]
    at: "At"

    def ask(self) -> Found:
        """The runs as they are now. Raises UserError."""
        from accel_trainer.report.columns import in_order_of
        from accel_trainer.report.compare import never_measured, refuse_unknown_metrics

        found = read_runs(self.paths, self.metrics, self.at)
        refuse_unknown_metrics(never_measured(found.rows), found.folders)
        rows = in_order_of(fitting(found.rows, self.where), self.sort) if found.rows else []
        return Found(rows, found.problems)


def _format(word: str) -> str:
    from accel_trainer.report.documents import FORMATS

    if word not in FORMATS:
        near = did_you_mean(word, FORMATS) or f"; there are: {listed(FORMATS)}"
        raise UserError(f"{word!r} is no format{near}", option="format")
    return word


def _runs(rows: "list[Comparison]", columns: str | None, *, is_for_people: bool) -> "Table":
    from accel_trainer.report import compare
    from accel_trainer.report.columns import split_names
    from accel_trainer.report.tables import table_of_runs

    if columns is None:
        keys = compare.varying_parameters(rows)
    else:
        keys = compare.find_parameters(split_names(columns), rows) if rows else []
    return table_of_runs(compare.select_parameters(keys, rows), keys, is_for_people=is_for_people)


def _differences(rows: "Sequence[Comparison]") -> "Table":
    from accel_trainer.report.tables import table_of_differences

    begun = [row for row in rows if row.settings]
    if never := [row.job for row in rows if not row.settings]:
        echo(f"never begun, so without parameters: {listed(never)}", err=True)
    shown = table_of_differences(begun)
    if begun and not shown.rows:
        echo(f"no parameter differs among {count_of(len(begun), 'run')}", err=True)
    return shown


def _groups(
    rows: "Sequence[Comparison]",
    names: Sequence[str],
    metrics: Sequence[str],
    against: str | None,
    *,
    is_for_people: bool,
) -> "Table":
    from accel_trainer.report.columns import find_column
    from accel_trainer.report.groups import differences, find_group, grouped
    from accel_trainer.report.tables import doubts_of_groups, table_of_groups, table_of_tests

    found = grouped(rows, names)
    columns = [find_column(name, rows, "metric") for name in metrics or ["best"]]
    print_warnings(doubts_of_groups(found, columns))
    if against is None:
        return table_of_groups(found, columns, is_for_people=is_for_people)
    other = find_group(against, found)
    tests = [(column, one) for column in columns for one in differences(found, other, column)]
    return table_of_tests(tests, is_for_people=is_for_people)


def _print(shown: "Table", form: str) -> None:
    from accel_trainer.cli.tables import table
    from accel_trainer.report.documents import as_csv, as_latex, as_markdown

    if form == "json":
        echo_text(json.dumps(shown.records, indent=2))
    elif form == "csv":
        echo_text(as_csv(shown.header, shown.rows).removesuffix("\n"))
    elif shown.rows:
        write = {"markdown": as_markdown, "latex": as_latex, "table": table}[form]
        echo_text(write(shown.header, shown.rows, shown.decimals).removesuffix("\n"))
