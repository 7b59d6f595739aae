"""The figure of `accel-train plot`: a panel for each metric, a line for each run or group of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from accel_trainer.report.axes import (
    BAND_OPACITY,
    MOST_LABELS,
    best_note,
    fit_labels,
    line_style,
    log_scale,
    mark_best,
    name_lines,
    only_whole,
    shown_name,
)
from accel_trainer.report.curves import Axis, Curve
from accel_trainer.report.metric_names import metric_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MINUTE_S, HOUR_S = 60.0, 3600.0
# Curves of which each has a look of its own: seven colors, each with four dashes.
MOST_NAMED = 28
# Time is shown in a unit of which there are at least so many.
FEWEST = 3


@dataclass(frozen=True)
class Look:
    """log_y: a logarithmic scale. size: width and height in inches, None for those of the style sheet, with a height
    for each panel."""

    log_y: bool = False
    size: tuple[float, float] | None = None


def curves_figure(panels: Mapping[str, Sequence[Curve]], axis: Axis, look: Look) -> "Figure":
    """Draw curves by their metrics. To be called, and what it gives to be saved, within `style.styled`."""
    import matplotlib
    from matplotlib.figure import Figure

    width, height = matplotlib.rcParams["figure.figsize"]
    figure = Figure(figsize=look.size or (width, height * len(panels)))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    unit, label = _unit(axis, [x for curves in panels.values() for curve in curves for x in curve.x])
    numbers = names_of(panels)
    has_names, has_marks = len(numbers) <= MOST_NAMED, len(numbers) <= MOST_LABELS
    for (metric, curves), axes in zip(panels.items(), grid, strict=True):
        for curve in curves:
            _draw(axes, curve if has_marks else replace(curve, best=None), numbers[curve.name], unit)
        axes.set_ylabel(metric_label(metric))
        if look.log_y:
            log_scale(axes)
        if axis == "epoch":
            only_whole(axes, [x for curve in curves for x in curve.x])
        if len(curves) == 1 and curves[0].best is not None and curves[0].best_epoch is not None:
            best_note(axes, metric, curves[0].best[1], curves[0].best_epoch)
    grid[-1].set_xlabel(label)
    if len(numbers) == 1:
        figure.suptitle(next(iter(numbers)), parse_math=False)
    elif has_names:
        name_lines(figure, list(grid), may_grow=look.size is None)
    fit_labels(figure, list(grid))
    return figure


def names_of(panels: Mapping[str, Sequence[Curve]]) -> dict[str, int]:
    """The curves of all panels by their names, numbered."""
    return {name: number for number, name in enumerate(dict.fromkeys(c.name for cs in panels.values() for c in cs))}


def _unit(axis: Axis, places: Sequence[float]) -> tuple[float, str]:
    """By what places are divided, and what the axis is called."""
    if axis != "seconds":
        return 1.0, axis
    longest = max(places, default=0.0)
    for seconds, name in ((HOUR_S, "h"), (MINUTE_S, "min")):
        if longest >= FEWEST * seconds:
            return seconds, f"time of training and validation ({name})"
    return 1.0, "time of training and validation (s)"


def _draw(axes: "Axes", curve: Curve, number: int, unit: float) -> None:
    style = line_style(number)
    x = [place / unit for place in curve.x]
    axes.plot(x, curve.y, label=shown_name(curve.name), marker="o" if len(x) == 1 else None, **style)
    if curve.sd is not None:
        low, high = ([y + sign * sd for y, sd in zip(curve.y, curve.sd, strict=True)] for sign in (-1, 1))
        if len(x) == 1:
            axes.errorbar(x, curve.y, curve.sd, color=style.get("color"), linewidth=0.8)
        else:
            axes.fill_between(x, low, high, color=style.get("color"), alpha=BAND_OPACITY, linewidth=0)
    if curve.best is not None:
        mark_best(axes, (curve.best[0] / unit, curve.best[1]), style.get("color"))
