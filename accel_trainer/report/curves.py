"""Metrics of runs over epochs, time or steps, as curves: one for each run, or means of groups of runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, format_value, listed, shortest_suffixes
from accel_trainer.report.compare import Comparison, primary_score
from accel_trainer.report.groups import Group, estimate
from accel_trainer.report.metric_names import split_and_score
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow, read_performance
from accel_trainer.run.status import read_status

Axis = Literal["epoch", "seconds", "step"]


@dataclass(frozen=True)
class History:
    """What was measured of a run, and its row in a comparison. steps_per_epoch: 0 where it is not known."""

    run: RunFolder
    row: Comparison
    rows: Sequence[PerformanceRow]
    steps_per_epoch: int

    @classmethod
    def of(cls, run: RunFolder, row: Comparison) -> Self:
        """That of a run folder. Raises UserError."""
        status = read_status(run)
        return cls(run, row, read_performance(run), 0 if status is None else status.steps_per_epoch)

    def values(self, metric: str) -> dict[int, float]:
        """A metric by epoch, where it was measured and is a finite number."""
        split, score = split_and_score(metric)
        found = {row.epoch: row.scores.get(score, math.nan) for row in self.rows if row.split == split}
        return {epoch: value for epoch, value in found.items() if math.isfinite(value)}

    def place(self, epoch: int, axis: Axis) -> float:
        """Where the end of an epoch is on an axis. seconds: of training and validation since the beginning, without
        start-up."""
        match axis:
            case "epoch":
                return epoch
            case "step":
                return epoch * self.steps_per_epoch
            case "seconds":
                return sum(row.seconds for row in self.rows if row.epoch <= epoch)


@dataclass(frozen=True)
class Curve:
    """y over x. sd: of each y, None where it is of one run. best: (x, y) of the run's best epoch, whose number is
    best_epoch."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    sd: Sequence[float] | None = None
    best: tuple[float, float] | None = None
    best_epoch: int | None = None


def axis_of(word: str, histories: Sequence[History]) -> Axis:
    """Raises UserError for what is no axis, and for steps where a run does not say how many an epoch has."""
    if word not in get_args(Axis):
        near = did_you_mean(word, get_args(Axis)) or f"; there are: {listed(get_args(Axis))}"
        raise UserError(f"no axis {word!r}{near}", option="x")
    axis: Axis = next(name for name in get_args(Axis) if name == word)
    unknown = [one.row.job for one in histories if not one.steps_per_epoch and one.rows]
    if axis == "step" and unknown:
        raise UserError(f"of {listed(unknown, 5)} it is not known how many steps an epoch has", option="x")
    return axis


def primary_metrics(histories: Sequence[History]) -> list[str]:
    """Those by which the best epochs of these runs were chosen, as columns of performance.csv."""
    scores = (primary_score(one.rows, one.row.metric) for one in histories if one.row.metric is not None and one.rows)
    return list(dict.fromkeys(scores))


def curves_of_runs(histories: Sequence[History], metric: str, axis: Axis) -> list[Curve]:
    """A curve for each run that has the metric, with its best epoch."""
    curves = []
    for history, name in zip(histories, _names(histories), strict=True):
        if not (values := history.values(metric)):
            continue
        places = {epoch: history.place(epoch, axis) for epoch in values}
        best = history.row.best_epoch
        mark = (places[best], values[best]) if best in values else None
        curves.append(Curve(name, list(places.values()), list(values.values()), best=mark, best_epoch=best))
    return curves


def _names(histories: Sequence[History]) -> list[str]:
    """The names of jobs; where several runs are of one job, something that tells them apart."""
    jobs = [one.row.job for one in histories]
    folders = [one.run.path.name for one in histories]
    paths = [str(one.run.path) for one in histories]
    return next((names for names in (jobs, folders) if len(set(names)) == len(names)), paths)


def curves_of_groups(groups: Sequence[Group], histories: Mapping[int, History], metric: str, axis: Axis) -> list[Curve]:
    """The mean of each group with its standard deviation, in the epochs that all of its runs with this metric have.

    histories: by the `id` of their rows, which are those of the groups.
    """
    curves = []
    for group in groups:
        members = [(one, values) for run in group.runs if (values := (one := histories[id(run)]).values(metric))]
        epochs = common_epochs([values for _, values in members])
        if not epochs:
            continue
        found = [estimate([values[epoch] for _, values in members]) for epoch in epochs]
        x = [sum(one.place(epoch, axis) for one, _ in members) / len(members) for epoch in epochs]
        y = [one.mean for one in found if one.mean is not None]
        sd = [one.sd for one in found if one.sd is not None]
        curves.append(Curve(f"{group_name(group)} (n = {len(members)})", x, y, sd if len(members) > 1 else None))
    return curves


def group_name(group: Group) -> str:
    """What distinguishes a group: 'resnet18, lr 0.1'. A word needs no name of its parameter."""
    names, words = shortest_suffixes(group.levels), list[str]()
    for key, value in group.levels.items():
        level = value[0] if isinstance(value, list) and len(value) == 1 else value
        words.append(level if isinstance(level, str) else f"{names[key]} {format_value(level)}")
    return ", ".join(words) or group.name


def common_epochs(values: Sequence[Mapping[int, float]]) -> list[int]:
    """Those that all have, in order."""
    if not values:
        return []
    return sorted(set(values[0]).intersection(*values[1:]))


def doubts_of_curves(groups: Sequence[Group], histories: Mapping[int, History], metric: str) -> Iterator[str]:
    """What the means of groups leave out: a line each."""
    for group in groups:
        values = {run.job: histories[id(run)].values(metric) for run in group.runs}
        if missing := [job for job, found in values.items() if not found]:
            yield f"{group.name}: without {metric}, and left out: {listed(missing, 5)}"
        there = [found for found in values.values() if found]
        common = common_epochs(there)
        if there and not common:
            yield f"{group.name}: its runs have no epoch in common, and are left out"
        elif common and max(map(max, there)) > common[-1]:
            yield f"{group.name}: the mean ends with epoch {common[-1]}, as far as all of its runs go"
