"""Accuracy over visibility, or over the ratio of signal to signal plus noise, as a sigmoid with its 50% threshold."""

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.factor import number_of
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Cell, Trials

# Of the published definition of a threshold.
SAMPLES = 1000
MAX_EVALUATIONS = 100_000
PARAMETERS = ("height", "center", "slope", "base")
ALL = "all"


@dataclass(frozen=True)
class Sigmoid:
    """base + height / (1 + exp(-slope (x - center)))."""

    height: float
    center: float
    slope: float
    base: float

    def __call__(self, x: ArrayLike) -> NDArray[np.float64]:
        """Accuracy (0..1, or beyond where the fit is) at x."""
        return _sigmoid(np.asarray(x, float), self.height, self.center, self.slope, self.base)

    def crossing(self, level: float = 0.5) -> float:
        """The x at which the curve has this value, outside of 0..1 too; NaN where it nowhere has."""
        rest = level - self.base
        ratio = self.height / rest - 1 if rest else math.nan
        if not math.isfinite(ratio) or ratio <= 0 or self.slope == 0:
            return math.nan
        return self.center - math.log(ratio) / self.slope

    def published_threshold(self, level: float = 0.5) -> float:
        """The share of 1,000 samples of the curve, evenly spread over 0..1, that lie under this value, as in the data
        of Coggan and Tong: a count, and so 0 or 1 where the curve does not cross in 0..1."""
        return int((self(np.linspace(0, 1, SAMPLES)) < level).sum()) / SAMPLES


def _sigmoid(x: NDArray[np.float64], height: float, center: float, slope: float, base: float) -> NDArray[np.float64]:
    return np.asarray(base + height / (1 + np.exp(-slope * (x - center))))


def fit_sigmoid(x: ArrayLike, y: ArrayLike) -> Sigmoid | None:
    """The sigmoid nearest to points (n,), n at least 4, by least squares, from height max(y), center median(x), slope 1
    and base 0; None where the fit does not converge. Raises UserError for fewer points."""
    from scipy.optimize import OptimizeWarning, curve_fit

    places, values = np.asarray(x, float), np.asarray(y, float)
    if len(places) < len(PARAMETERS):
        raise UserError(f"a sigmoid has {len(PARAMETERS)} parameters, and here are {len(places)} points")
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("ignore", OptimizeWarning)
        start = [values.max(), np.median(places), 1, 0]
        try:
            found, _ = curve_fit(_sigmoid, places, values, start, maxfev=MAX_EVALUATIONS)
        except RuntimeError:
            return None
    return Sigmoid(*map(float, found))


def thresholds(
    trials: Trials, by: Sequence[str], over: str = "visibility", chance: float | None = None
) -> list[Figure]:
    """For each observer and combination of the conditions `by`, and for all of these together ("all"): `threshold_50`,
    where the fitted curve crosses 0.5; `threshold_50_published`, the published count; `mean_accuracy` over the degraded
    levels; and the curve's `sigmoid_height`, `sigmoid_center`, `sigmoid_slope`, `sigmoid_base`.

    over: a condition in 0..1 of which 1 is the image itself, and 0 nothing of it. Points are chance at 0, the
    accuracies of the levels between, and at 1 the observer's accuracy on images themselves, whatever the conditions
    there. In the curve of all together each combination weighs the same. chance: 1 over the number of classes by
    default. n: the points, or levels. Raises UserError for levels that are no such numbers, and where no images
    themselves were shown.
    """
    if not len(trials):
        raise UserError("no trials")
    numbers = trials.condition(over).numbers(over)
    if not ((numbers >= 0) & (numbers <= 1)).all():
        raise UserError(f"{over} is in 0..1, and here goes from {numbers.min():g} to {numbers.max():g}")
    if chance is None:
        chance = 1 / len(trials.classes or trials.true_class.used())
    points = defaultdict[Cell, dict[Levels, dict[float, float]]](lambda: defaultdict(dict))
    for figure in accuracy(trials, [*by, over]):
        *levels, (_, level) = figure.cell.conditions
        of_cell, x = points[figure.cell.who][tuple(levels)], number_of(level) or 0.0
        if x in of_cell:
            raise UserError(f"{over} {x:g} is written in two ways")
        of_cell[x] = figure.value
    return [figure for who, curves in points.items() for figure in _figures(who, curves, by, over, chance)]


Levels = tuple[tuple[str, str], ...]


def _figures(
    who: Cell, curves: Mapping[Levels, dict[float, float]], by: Sequence[str], over: str, chance: float
) -> list[Figure]:
    undegraded = [points[1.0] for points in curves.values() if 1.0 in points]
    if not undegraded:
        raise UserError(f"{who.observer} has no trials of images themselves, {over} 1", hint="measure those too")
    degraded = {levels: _below_one(points) for levels, points in curves.items() if _below_one(points)}
    whole = float(np.mean(undegraded))
    together = defaultdict[float, list[float]](list)
    for points in degraded.values():
        for x, y in points.items():
            together[x].append(y)
    pooled = {x: float(np.mean(y)) for x, y in together.items()}
    if by:
        degraded[tuple((name, ALL) for name in by)] = pooled
    return [
        figure
        for levels, points in degraded.items()
        for figure in _of_curve(Cell(who.observer, who.layer, who.cycle, levels), points, chance, whole)
    ]


def _below_one(points: Mapping[float, float]) -> dict[float, float]:
    return {x: y for x, y in sorted(points.items()) if 0 < x < 1}


def _of_curve(cell: Cell, points: Mapping[float, float], chance: float, whole: float) -> list[Figure]:
    x, y = [0.0, *points, 1.0], [chance, *points.values(), whole]
    curve = fit_sigmoid(x, y)
    mean = float(np.mean(list(points.values())))
    values = {
        "threshold_50": math.nan if curve is None else curve.crossing(),
        "threshold_50_published": math.nan if curve is None else curve.published_threshold(),
        "mean_accuracy": mean,
        **{f"sigmoid_{name}": math.nan if curve is None else getattr(curve, name) for name in PARAMETERS},
    }
    return [
        Figure(cell, name, value, n=len(points) if name == "mean_accuracy" else len(x))
        for name, value in values.items()
    ]
