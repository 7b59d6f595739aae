"""The table of runs as the page has it: what `accel-train compare` prints, with what the page sorts by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from accel_trainer.core.text import canonical, format_value
from accel_trainer.report.columns import Column, find_column
from accel_trainer.report.compare import Comparison, select_parameters
from accel_trainer.report.documents import shown_cells
from accel_trainer.report.page.differences import Difference
from accel_trainer.report.tables import Table, table_of_runs


@dataclass(frozen=True)
class PageColumn:
    """title: as in the terminal. name: the whole one. decimals: of its numbers. differs: whether it is a parameter that
    is not the same in all runs."""

    name: str
    title: str
    decimals: int
    is_number: bool
    differs: bool


@dataclass(frozen=True)
class PageTable:
    """cells: a row for each run, of texts, empty for nothing. values: numbers where the cells are of numbers, to be
    sorted by, else the texts."""

    columns: list[PageColumn]
    cells: list[list[str]]
    values: list[list[Any]]


def page_table(runs: Sequence[Comparison], keys: Sequence[str], differences: Sequence[Difference]) -> PageTable:
    """keys: parameters that have a column."""
    chosen = select_parameters(keys, runs)
    shown, exact = (table_of_runs(chosen, keys, is_for_people=for_people) for for_people in (True, False))
    places = {name: place for place, name in enumerate(exact.header)}
    values = [list(row) for row in exact.rows]
    cells = [shown_cells(row, shown.decimals, "") for row in shown.rows]
    for run, row, texts in zip(runs, values, cells, strict=True):
        row[places["epochs"]] = run.epochs if run.num_epochs is not None else None
        texts[places["parameters"]] = "" if run.parameters is None else f"{run.parameters:,}"
        for key in keys:
            row[places[key]] = sortable(run.settings.get(key))
    differing = {key for one in differences for key in one.keys}
    columns = [
        PageColumn(name, title, decimals, _are_numbers([row[place] for row in values]), name in differing)
        for place, (name, title, decimals) in enumerate(zip(exact.header, shown.header, shown.decimals, strict=True))
    ]
    return PageTable(columns, cells, values)


def with_sections(table: PageTable, runs: Sequence[Comparison], differences: Sequence[Difference]) -> PageTable:
    """The table with a column of each section of which several parameters differ together, in place of the column of
    the first one."""
    columns, cells = list(table.columns), [list(row) for row in table.cells]
    places = {column.name: place for place, column in enumerate(columns)}
    for one in differences:
        if len(one.keys) > 1 and (place := places.get(one.key)) is not None:
            columns[place] = replace(columns[place], title=one.title, is_number=False)
            for run, row in zip(runs, cells, strict=True):
                row[place] = one.short.get(canonical(run.settings.get(one.key)), "")
    return PageTable(columns, cells, table.values)


def measured_columns(runs: Sequence[Comparison], metrics: Sequence[str]) -> list[Column]:
    """What groups have means of: the metrics that were asked for, else the best of the primary one and the accuracies
    under degradations."""
    if metrics or not runs:
        return [find_column(name, runs, "metric") for name in metrics if runs]
    degradations = dict.fromkeys(name for run in runs for name in run.degraded)
    return [find_column("best", runs, "metric"), *map(_degraded, degradations)]


def _degraded(name: str) -> Column:
    return Column(name, lambda run: run.degraded.get(name))


def sortable(value: Any) -> Any:
    """A number as it is, None for nothing, everything else as a text."""
    return value if isinstance(value, int | float | None) else format_value(value)


def _are_numbers(values: Sequence[Any]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)


def plain(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and texts of a table that the page shows as it is."""
    return table.header, [shown_cells(row, table.decimals, "") for row in table.rows]
