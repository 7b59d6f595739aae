"""The ways in which the page groups runs, each with what `report.groups` computes of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from accel_trainer.core.text import canonical, format_value, listed
from accel_trainer.report.columns import Column
from accel_trainer.report.compare import Comparison
from accel_trainer.report.groups import ALL_BUT_SEED, LEVEL, Group, estimate, grouped, other_differences
from accel_trainer.report.page.differences import Difference
from accel_trainer.report.page.table import sortable

# Beside the one that was asked for.
MOST_GROUPINGS = 12


@dataclass(frozen=True)
class PageGroup:
    """name: in a few words. levels: those of the grouping's columns as texts, None for nothing; order: what they are
    sorted by. runs: their places. estimates: of each metric n, mean, sd, low and high. note: what else than the seed
    differs between its runs."""

    name: str
    levels: list[str | None]
    order: list[Any]
    runs: list[int]
    estimates: list[tuple[Any, ...]]
    note: str


@dataclass(frozen=True)
class Grouping:
    """Groups by some columns. name: as `--group-by` takes it; title: for a person; columns: their titles."""

    name: str
    title: str
    columns: list[str]
    groups: list[PageGroup]


@dataclass(frozen=True)
class _Columns:
    """The columns of a grouping; of parameters that differ together the first one stands for all."""

    keys: Sequence[str]
    differences: Mapping[str, Difference]

    def title(self, key: str) -> str:
        return self.differences[key].title if key in self.differences else key

    def text(self, key: str, group: Group) -> str | None:
        """A level in a column of its own."""
        value = group.levels[key]
        if value is None:
            return None
        is_section = key in self.differences and len(self.differences[key].keys) > 1
        return self.short(key, group) if is_section else format_value(value)

    def short(self, key: str, group: Group) -> str:
        """A level in the name of a group; empty for nothing."""
        value = group.levels[key]
        if value is None:
            return ""
        if key in self.differences:
            return self.differences[key].short[canonical(value)]
        return value if isinstance(value, str) else f"{key} {format_value(value)}"


def groupings(
    runs: Sequence[Comparison], group_by: Sequence[str], differences: Sequence[Difference], metrics: Sequence[Column]
) -> list[Grouping]:
    """The one that was asked for, the replicates, and one by each difference. Raises UserError."""
    if not runs:
        return []
    further: dict[tuple[str, ...], str] = {
        (ALL_BUT_SEED,): "replicates (all but seed)",
        ("architecture",): "architecture",
    }
    further |= {(one.key,): one.title for one in differences[:MOST_GROUPINGS]}
    ways: dict[tuple[str, ...], str] = {tuple(group_by): ", ".join(group_by)} if group_by else {}
    return [_grouping(runs, names, title, differences, metrics) for names, title in (ways | further).items()]


def _grouping(
    runs: Sequence[Comparison],
    names: Sequence[str],
    title: str,
    differences: Sequence[Difference],
    metrics: Sequence[Column],
) -> Grouping:
    places = {id(run): place for place, run in enumerate(runs)}
    groups = grouped(runs, names)
    of_key = {one.key: one for one in differences}
    of_others = {key for one in differences for key in one.keys[1:] if one.key in groups[0].levels}
    columns = _Columns([key for key in groups[0].levels if key not in of_others], of_key)
    labels = [", ".join(filter(None, (columns.short(key, group) for key in columns.keys))) for group in groups]
    if len(set(labels)) < len(labels) or not all(labels):
        labels = [group.name for group in groups]
    return Grouping(
        ",".join(names),
        title,
        [columns.title(key) for key in columns.keys],
        [_page_group(name, group, columns, places, metrics) for name, group in zip(labels, groups, strict=True)],
    )


def _page_group(
    name: str, group: Group, columns: _Columns, places: dict[int, int], metrics: Sequence[Column]
) -> PageGroup:
    levels = [group.levels[key] for key in columns.keys]
    others = other_differences(group)
    return PageGroup(
        name=name,
        levels=[columns.text(key, group) for key in columns.keys],
        order=[sortable(value) for value in levels],
        runs=[places[id(run)] for run in group.runs],
        estimates=[astuple(estimate(group.values(column))) for column in metrics],
        note=f"its runs differ in {listed(others)}, not only in the seed" if others else "",
    )


def quantiles(most: int) -> Iterator[float]:
    """Of Student's t distribution with 1, 2, ... most - 1 degrees of freedom, as intervals of so many values need."""
    from scipy.special import stdtrit

    yield from (float(stdtrit(freedom, (1 + LEVEL) / 2)) for freedom in range(1, most))
