"""What a benchmark has found: the measurements of some contestants, round by round, and how they compare."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Values = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Comparison:
    """How each contestant stands to the baseline in the same round."""

    heading: str
    of: Callable[[float, float], float]
    digits: int


# Of a baseline that was too short to be measured nothing is a multiple.
RATIO = Comparison("times the baseline", lambda value, baseline: value / baseline if baseline else math.nan, 2)
DIFFERENCE = Comparison("beyond the baseline", lambda value, baseline: value - baseline, 2)


@dataclass(frozen=True)
class Goal:
    """What is to be reached, what was found, and whether that is it."""

    text: str
    found: float
    is_met: bool


@dataclass(frozen=True)
class Column:
    """Something else that was measured in the same runs: the medians are shown, nothing is compared."""

    heading: str
    values: Values
    digits: int = 0


@dataclass(frozen=True)
class Section:
    """One thing that was measured of all contestants; of each as many values as there were rounds."""

    title: str
    about: str
    unit: str
    values: Values
    baseline: str
    comparison: Comparison = RATIO
    digits: int = 0
    goals: Sequence[Goal] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    """Who could not take part, and why."""
    columns: Sequence[Column] = ()


@dataclass(frozen=True)
class Row:
    """A contestant's median and range, and those of its comparison with the baseline; None without a baseline."""

    name: str
    median: float
    lowest: float
    highest: float
    compared: tuple[float, float, float] | None


def rows(section: Section) -> list[Row]:
    baseline = section.values.get(section.baseline)
    found = []
    for name, values in section.values.items():
        compared = None
        if baseline:
            each = [section.comparison.of(value, base) for value, base in zip(values, baseline, strict=True)]
            compared = (statistics.median(each), min(each), max(each))
        found.append(Row(name, statistics.median(values), min(values), max(values), compared))
    return found


def medians(values: Values) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in values.items()}


def median_compared(values: Values, name: str, baseline: str, comparison: Comparison = RATIO) -> float | None:
    """The median over the rounds of a contestant beside another; None where either is missing."""
    if name not in values or baseline not in values:
        return None
    return statistics.median(comparison.of(a, b) for a, b in zip(values[name], values[baseline], strict=True))
