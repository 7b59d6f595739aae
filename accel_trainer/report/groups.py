"""Groups of runs: mean, standard deviation and 95% interval of a metric, and whether two groups differ."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accel_trainer.config.derived import keys
from accel_trainer.config.marks import Affects
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import canonical, did_you_mean, format_value, listed
from accel_trainer.report.columns import Column, find_column, is_number, place_in_order
from accel_trainer.report.compare import Comparison, names_of_parameters

ALL_BUT_SEED = "all-but-seed"
SEED = "seed"
LEVEL = 0.95
# What may differ between runs of one recipe: how they were carried out and stored, not how far.
OF_A_RUN = keys(lambda mark: mark.affects is Affects.RUN) - {"num_epochs"}


@dataclass(frozen=True)
class Estimate:
    """Of n values: mean; sd, with n - 1; low and high, the 95% interval of the mean by Student's t distribution. None
    where there are too few values."""

    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """Runs that have the same in some columns. levels: {column: value}."""

    levels: Mapping[str, Any]
    runs: tuple[Comparison, ...]

    @property
    def name(self) -> str:
        """What distinguishes it: 'resnet18, lr 0.1'."""
        return ", ".join(format_value(value) for value in self.levels.values()) or "all runs"

    def values(self, column: Column) -> list[float]:
        """Those of the runs that have one."""
        return [value for run in self.runs if is_number(value := column.of(run))]

    def by_seed(self, column: Column) -> dict[Any, float] | None:
        """The values by seed; None where a seed is there twice, or a run has none."""
        found = {run.settings.get(SEED): value for run in self.runs if is_number(value := column.of(run))}
        return found if None not in found and len(found) == len(self.values(column)) else None


@dataclass(frozen=True)
class Difference:
    """How much larger the mean of a group is than that of another; low and high: the 95% interval of that.

    p: two-sided, of no difference, by the paired t test where both have the same seeds, else by Welch's; with several
    groups by Holm's method. n: pairs, or None. None where there are too few values.
    """

    group: Group
    other: Group
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int | None

    @property
    def test(self) -> str:
        """Which test."""
        return "Welch" if self.n is None else f"paired by seed, n = {self.n}"


def grouped(runs: Sequence[Comparison], names: Sequence[str]) -> list[Group]:
    """Groups by columns (`columns.find_column`), in their order; ALL_BUT_SEED stands for all parameters of the recipe
    that differ, without the seed. Raises UserError."""
    chosen = dict[str, Column]()
    for name in names:
        for column in _all_but_seed(runs) if name == ALL_BUT_SEED else [find_column(name, runs, "group_by")]:
            chosen[column.name] = column
    found: dict[str, tuple[dict[str, Any], list[Comparison]]] = {}
    for run in runs:
        levels = {name: column.of(run) for name, column in chosen.items()}
        found.setdefault(canonical(levels), (levels, []))[1].append(run)
    groups = [Group(levels, tuple(members)) for levels, members in found.values()]
    return sorted(groups, key=lambda group: [place_in_order(value) for value in group.levels.values()])


def _all_but_seed(runs: Sequence[Comparison]) -> Iterator[Column]:
    """The architecture, and whatever else of a recipe differs."""
    yield find_column("architecture", runs, "group_by")
    for key in _differing(runs):
        if key not in (SEED, "architecture"):
            yield find_column(key, runs, "group_by")


def _differing(runs: Sequence[Comparison]) -> list[str]:
    """Parameters of the recipe that are not the same in all runs."""
    names = [key for key in names_of_parameters(runs) if key not in OF_A_RUN and key.partition(".")[0] not in OF_A_RUN]
    return [key for key in names if len({canonical(run.settings.get(key)) for run in runs}) > 1]


def other_differences(group: Group) -> list[str]:
    """What else than the seed differs between the runs of a group."""
    return [key for key in _differing(group.runs) if key != SEED]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and interval of values."""
    n = len(values)
    mean = float(np.mean(values)) if n else None
    if mean is None or n < 2:
        return Estimate(n, mean, None, None, None)
    sd = float(np.std(values, ddof=1))
    half = _t_of_level(n - 1) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def find_group(text: str, groups: Sequence[Group]) -> Group:
    """The group that a person names: by its name, by one of its levels, or by several with commas.

    Raises UserError for none and for several.
    """
    words = {word.strip() for word in text.split(",")}
    found = [group for group in groups if group.name == text] or [
        group for group in groups if words <= {format_value(value) for value in group.levels.values()}
    ]
    names = [group.name for group in groups]
    if not found:
        near = did_you_mean(text, names) or f"; there are: {listed(names)}"
        raise UserError(f"no group {text!r}{near}", option="against")
    if len(found) > 1:
        raise UserError(f"{text!r} may be {listed(one.name for one in found)}", option="against")
    return found[0]


def differences(groups: Sequence[Group], other: Group, column: Column) -> list[Difference]:
    """Of each other group to that one."""
    found = [_difference(group, other, column) for group in groups if group is not other]
    adjusted = _holm([one.p for one in found])
    return [
        Difference(one.group, one.other, one.difference, one.low, one.high, p, one.n)
        for one, p in zip(found, adjusted, strict=True)
    ]


def _difference(group: Group, other: Group, column: Column) -> Difference:
    own, theirs = group.by_seed(column), other.by_seed(column)
    if own is not None and theirs is not None and own.keys() == theirs.keys() and own:
        pairs = [own[seed] - theirs[seed] for seed in own]
        mean, error, freedom = float(np.mean(pairs)), _error(pairs), len(pairs) - 1
        return Difference(group, other, mean, *_interval(mean, error, freedom), len(pairs))
    values, others = group.values(column), other.values(column)
    if not values or not others:
        return Difference(group, other, None, None, None, None, None)
    mean = float(np.mean(values) - np.mean(others))
    errors = [_error(values), _error(others)]
    if None in errors:
        return Difference(group, other, mean, None, None, None, None)
    squares = [error**2 for error in errors if error is not None]
    # Welch and Satterthwaite.
    parts = sum(square**2 / (len(side) - 1) for square, side in zip(squares, (values, others), strict=True))
    freedom_of_both = sum(squares) ** 2 / parts if parts else math.inf
    return Difference(group, other, mean, *_interval(mean, math.sqrt(sum(squares)), freedom_of_both), None)


def _error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None where there is one value."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def _interval(mean: float, error: float | None, freedom: float) -> tuple[float | None, float | None, float | None]:
    """(low, high, p) of a difference with this standard error; None where that is not known, or 0."""
    from scipy.special import stdtr

    if error is None:
        return None, None, None
    half = _t_of_level(freedom) * error
    p = 2 * float(stdtr(freedom, -abs(mean) / error)) if error else None
    return mean - half, mean + half, p


def _t_of_level(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _holm(values: Sequence[float | None]) -> list[float | None]:
    """p values of several tests, adjusted step by step from the smallest (Holm 1979)."""
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    adjusted, largest = list(values), 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, value * (len(order) - rank)))
        adjusted[place] = largest
    return adjusted


def missing_values(groups: Iterable[Group], column: Column) -> list[str]:
    """The jobs of the runs that have no value."""
    return [run.job for group in groups for run in group.runs if not is_number(column.of(run))]
