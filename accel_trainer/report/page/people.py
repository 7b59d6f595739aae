"""Accuracy of people over levels, from their trials, to be drawn beside that of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.measure import Measure, measure
from accel_trainer.report.groups import estimate

# What a condition is called, and how strong it is, in our tables and in published ones (docs/measures.md).
COLUMNS = (
    ("degradation", "level"),
    ("occluder_class", "visibility"),
    ("corruption", "severity"),
    ("benchmark", "condition"),
)
# Of published occlusion: the images themselves.
UNDEGRADED = "none"


@dataclass(frozen=True)
class PeopleLevel:
    """Accuracy (0..1) under one condition: the mean over so many people, with the 95% interval of that by Student's t;
    of one, Wilson's of the trials. name: as of a degradation, without what is before its slash; `none` for images
    themselves."""

    name: str
    level: str
    accuracy: float
    low: float
    high: float
    people: int


@dataclass(frozen=True)
class People:
    """Those of a file, and what they are called."""

    name: str
    levels: Sequence[PeopleLevel]


def read_people(path: Path) -> People:
    """People of a table of trials, as `accel-train measure` reads them. Raises UserError."""
    try:
        figures = measure([path], Measure.ACCURACY).figures
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", option="human") from error
    known = {name for figure in figures for name in figure.cell.levels}
    pair = next((pair for pair in COLUMNS if known.issuperset(pair)), None)
    if pair is None:
        pairs = "; ".join(map(", ".join, COLUMNS))
        raise UserError(
            f"{path}: has no degradations and levels; its conditions are {listed(sorted(known)) or 'none'}",
            option="human",
            hint=f"known are: {pairs}",
        )
    return People(path.name.split(".")[0], _levels(figures, *pair))


def _levels(figures: Sequence[Figure], name: str, level: str) -> list[PeopleLevel]:
    """Trials of a person under other conditions, such as colors of occluders, are put together."""
    found: dict[tuple[str, str], dict[str, list[Figure]]] = {}
    for figure in figures:
        key = figure.cell.levels[name], figure.cell.levels[level]
        found.setdefault(key, {}).setdefault(figure.cell.observer, []).append(figure)
    return [_level(*key, list(people.values())) for key, people in found.items()]


def _level(name: str, level: str, people: Sequence[Sequence[Figure]]) -> PeopleLevel:
    from accel_trainer.measures.accuracy import wilson

    shares = [_share(figures) for figures in people]
    over = estimate(shares)
    low, high = over.low, over.high
    if low is None or high is None:
        trials = sum(figure.n or 0 for figure in people[0])
        low, high = wilson(round(shares[0] * trials), trials)
    return PeopleLevel(name, level, sum(shares) / len(shares), low, high, len(people))


def _share(figures: Sequence[Figure]) -> float:
    """Of all trials of a person; a table of accuracies does not say of how many each is."""
    weights = [figure.n or 1 for figure in figures]
    return sum(weight * figure.value for weight, figure in zip(weights, figures, strict=True)) / sum(weights)
