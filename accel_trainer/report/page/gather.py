"""From runs, chosen and in order as for the table of `accel-train compare`, to what the page holds."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from accel_trainer.report.columns import Column, is_number, split_names
from accel_trainer.report.compare import Comparison, find_parameters
from accel_trainer.report.groups import ALL_BUT_SEED, differences, find_group, grouped
from accel_trainer.report.page.confusions import confusions_of
from accel_trainer.report.page.contents import PageContents, PageRun
from accel_trainer.report.page.curves import TRAIN, Split, names_of_series, series_name, splits_of
from accel_trainer.report.page.degradations import panels_of
from accel_trainer.report.page.differences import Difference, what_differs
from accel_trainer.report.page.groupings import Grouping, groupings, quantiles
from accel_trainer.report.page.people import People
from accel_trainer.report.page.sheets import sheets_of
from accel_trainer.report.page.table import measured_columns, page_table, plain, with_sections
from accel_trainer.report.tables import doubts_of_groups, table_of_tests
from accel_trainer.run.evaluations import best_accuracies
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import read_performance

# Parameters that differ and have a column of their own, and curves that are shown at first.
MOST_COLUMNS, MOST_FIRST = 12, 4


@dataclass(frozen=True)
class Wishes:
    """What was asked for, as options of `accel-train compare`."""

    columns: str | None = None
    metrics: Sequence[str] = ()
    group_by: Sequence[str] = ()
    against: str | None = None
    people: Sequence[People] = ()
    beside: Path = Path()
    """The folder of the page, from which links to runs go."""


def gather(runs: Sequence[Comparison], wishes: Wishes, notes: Sequence[str] = ()) -> PageContents:
    """What a page holds of these runs. notes: what else is to be said on it. Raises UserError for what was asked for
    and is not there, and for files that cannot be read."""
    notes = list(notes)
    folders = [RunFolder(Path(run.folder)) for run in runs]
    differing = what_differs(runs)
    labels = _labels(runs)
    metrics = measured_columns(runs, wishes.metrics)
    splits = [splits_of(read_performance(folder)) for folder in folders]
    first = _first_series(runs, splits)
    ways = groupings(runs, wishes.group_by, differing, metrics)
    table = page_table(runs, _columns(runs, wishes.columns, differing), differing)
    if wishes.columns is None:
        table = with_sections(table, runs, differing)
    decimals = {column.name: column.decimals for column in table.columns}
    best_epochs = [(folder, run.best_epoch) for folder, run in zip(folders, runs, strict=True)]
    measured = {place: best_accuracies(*one) for place, one in enumerate(best_epochs)}
    return PageContents(
        written=time.time(),
        runs=[PageRun(*one) for one in zip(labels, _links(folders, wishes.beside), splits, strict=True)],
        table=table,
        metrics=[(column.name, decimals.get(column.name, 2)) for column in metrics],
        metric_values=[_numbers(column, runs) for column in metrics],
        groupings=ways,
        grouping=",".join(wishes.group_by),
        quantiles=list(quantiles(len(runs))),
        tests=_tests(runs, wishes, metrics, notes),
        series=list(dict.fromkeys([*first, *names_of_series(splits)])),
        first_series=first,
        differences=differing,
        panels=panels_of(measured, labels, wishes.people),
        confusions=confusions_of(best_epochs, notes),
        sheets=sheets_of(folders, _replicates(ways)),
        notes=notes,
    )


def _labels(runs: Sequence[Comparison]) -> list[str]:
    """Names of jobs; of those that several runs have, with the folder."""
    counts = Counter(run.job for run in runs)
    return [run.job if counts[run.job] == 1 else f"{run.job} ({run.folder})" for run in runs]


def _links(folders: Sequence[RunFolder], beside: Path) -> list[str]:
    """Relative, so that page and runs can be moved together."""
    start = beside.resolve()
    return [f"./{quote(os.path.relpath(folder.path.resolve(), start))}/" for folder in folders]


def _numbers(column: Column, runs: Sequence[Comparison]) -> list[float | None]:
    return [value if is_number(value := column.of(run)) else None for run in runs]


def _columns(runs: Sequence[Comparison], asked: str | None, differences: Sequence[Difference]) -> list[str]:
    """Parameters that have a column of their own: those that were asked for, or the first ones that differ."""
    if asked is not None:
        return find_parameters(split_names(asked), runs) if runs else []
    return [one.key for one in differences if one.key != "architecture"][:MOST_COLUMNS]


def _first_series(runs: Sequence[Comparison], splits: Sequence[dict[str, Split]]) -> list[str]:
    """The primary metrics and the loss, of the validation and of the training, as far as they were measured."""
    known = set(names_of_series(splits))
    primary = [run.metric for run in runs if run.metric is not None]
    wanted = [series_name(split, score) for score in (*primary, "loss") for split in ("val", TRAIN)]
    return [name for name in dict.fromkeys(wanted) if name in known][:MOST_FIRST]


def _replicates(ways: Sequence[Grouping]) -> list[list[int]]:
    return [group.runs for one in ways if one.name == ALL_BUT_SEED for group in one.groups]


def _tests(
    runs: Sequence[Comparison], wishes: Wishes, metrics: Sequence[Column], notes: list[str]
) -> tuple[list[str], list[list[str]]] | None:
    """The differences of groups to the one that was named, as a table; and what their means hide, as notes."""
    if not wishes.group_by or not runs:
        return None
    groups = grouped(runs, wishes.group_by)
    notes += doubts_of_groups(groups, metrics)
    if wishes.against is None:
        return None
    other = find_group(wishes.against, groups)
    return plain(
        table_of_tests(
            [(column, one) for column in metrics for one in differences(groups, other, column)], is_for_people=True
        )
    )
