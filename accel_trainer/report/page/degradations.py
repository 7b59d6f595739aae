"""Accuracy of runs and people over the levels of each degradation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accel_trainer.measures.factor import number_of
from accel_trainer.report.condition_curves import places_of_levels
from accel_trainer.report.page.curves import rounded
from accel_trainer.report.page.people import UNDEGRADED, People, PeopleLevel
from accel_trainer.run.evaluations import ConditionAccuracy

# Of runs by their places: by degradation the accuracy at each level.
Accuracies = Mapping[int, Mapping[str, Sequence[ConditionAccuracy]]]


@dataclass(frozen=True)
class Line:
    """Accuracy in percent with an interval at places of an axis. n: images of a run, or people. what: what the interval
    is."""

    name: str
    run: int | None
    what: str
    places: list[int]
    accuracies: list[float | None]
    lows: list[float | None]
    highs: list[float | None]
    n: list[int]


@dataclass(frozen=True)
class Panel:
    """A degradation. levels: as they are written; x: where they are on the axis."""

    name: str
    levels: list[str]
    x: list[float]
    are_shares: bool
    lines: list[Line]


def panels_of(accuracies: Accuracies, names: Sequence[str], people: Sequence[People]) -> list[Panel]:
    """A panel for each degradation that some run was measured under. names: of the runs. Levels are those of the runs,
    in their order; where they are shares of 1, those of people as well."""
    degradations = dict.fromkeys(name for found in accuracies.values() for name in found)
    return [_panel(name, accuracies, names, people) for name in sorted(degradations)]


def _panel(name: str, accuracies: Accuracies, names: Sequence[str], people: Sequence[People]) -> Panel:
    measured = {run: found[name] for run, found in accuracies.items() if name in found}
    levels = list(dict.fromkeys(one.level for of_run in measured.values() for one in of_run))
    theirs = [(one, _of_degradation(one, name)) for one in people]
    _, are_shares = places_of_levels(levels)
    if are_shares:
        known = {number_of(level) for level in levels}
        further = {number_of(one.level): one.level for _, found in theirs for one in found}
        levels += [level for number, level in further.items() if number is not None and number not in known]
        levels.sort(key=lambda level: number_of(level) or 0.0)
    x, are_shares = places_of_levels(levels)
    lines = [_line_of_run(names[run], run, of_run, levels) for run, of_run in measured.items()]
    lines += [line for one, found in theirs if (line := _line_of_people(one.name, found, levels)).places]
    return Panel(name, levels, x, are_shares, lines)


def _of_degradation(people: People, name: str) -> list[PeopleLevel]:
    """What people did under a degradation, and with the images themselves, if anything under the degradation."""
    own = name.rpartition("/")[2]
    found = [one for one in people.levels if one.name in (name, own)]
    return found + [one for one in people.levels if one.name == UNDEGRADED] if found else []


def _line_of_run(name: str, run: int, found: Sequence[ConditionAccuracy], levels: Sequence[str]) -> Line:
    points = sorted(((levels.index(one.level), one) for one in found), key=lambda point: point[0])
    return Line(
        name=name,
        run=run,
        what="95% interval (Wilson)",
        places=[place for place, _ in points],
        accuracies=[_percent(one.accuracy) for _, one in points],
        lows=[_percent(one.low) for _, one in points],
        highs=[_percent(one.high) for _, one in points],
        n=[one.images for _, one in points],
    )


def _line_of_people(name: str, found: Sequence[PeopleLevel], levels: Sequence[str]) -> Line:
    """At the levels that the axis has."""
    points: dict[int, PeopleLevel] = {}
    for one in found:
        place = _place(one.level, levels)
        if place is not None:
            points.setdefault(place, one)
    ordered = [points[place] for place in sorted(points)]
    return Line(
        name=name,
        run=None,
        what="95% interval of the mean over people",
        places=sorted(points),
        accuracies=[_percent(one.accuracy) for one in ordered],
        lows=[_percent(one.low) for one in ordered],
        highs=[_percent(one.high) for one in ordered],
        n=[one.people for one in ordered],
    )


def _place(level: str, levels: Sequence[str]) -> int | None:
    """Of the same level, as a text or as a number."""
    number = number_of(level)
    for place, one in enumerate(levels):
        if one == level or (number is not None and number_of(one) == number):
            return place
    return None


def _percent(share: float) -> float | None:
    return rounded(100 * share)
