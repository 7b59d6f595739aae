"""Accuracy over the levels of each degradation, curves.png, .pdf and .svg, from the summary of an evaluation."""

import csv
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from accel_trainer.core.blocks import open_text
from accel_trainer.report.axes import BAND_OPACITY, MARK, line_style, shades
from accel_trainer.report.style import save_all, styled, usable_style
from accel_trainer.run.evaluations import MAX_SUMMARY, EvaluationFolder, read_evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# As wide as two columns of a page, at most.
PANEL_INCHES, MOST_COLUMNS = (1.35, 1.45), 5
# Of more cycles than these only the first and the last are named.
FEW_CYCLES = 6

Row = Mapping[str, str]


def draw_condition_curves(folder: EvaluationFolder, chance: float | None) -> None:
    """Draw a panel for each degradation: accuracy with its interval over the level, of each cycle; the files appear
    whole. chance: the accuracy (0..1) of guessing. Nothing is drawn where images were not degraded."""
    with styled(usable_style()):
        if (figure := _figure(folder, chance)) is not None:
            save_all(figure, folder.curves)


def condition_curves(folder: EvaluationFolder, chance: float | None) -> "Figure | None":
    """The figure itself; None where images were not degraded."""
    with styled(usable_style()):
        return _figure(folder, chance)


def _figure(folder: EvaluationFolder, chance: float | None) -> "Figure | None":
    import matplotlib.figure

    with open_text(folder.summary, MAX_SUMMARY) as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    panels = _panels(folder)
    if not panels or not rows or "degradation" not in rows[0]:
        return None
    columns = min(len(panels), MOST_COLUMNS)
    lines = -(-len(panels) // columns)
    width, height = PANEL_INCHES
    figure = matplotlib.figure.Figure(figsize=(columns * width + 0.35, lines * height + 0.3))
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for (name, levels), axes in zip(panels.items(), grid.flat, strict=False):
        _panel(axes, name, levels, [row for row in rows if row["degradation"] == name], chance)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set(ylabel="accuracy", ylim=(0, 1))
    figure.suptitle(rows[0]["observer"], parse_math=False)
    cycles = [line for line in grid[0, 0].get_lines() if not str(line.get_label()).startswith("_")]
    if len(cycles) > 1:
        named = cycles if len(cycles) <= FEW_CYCLES else [cycles[0], cycles[-1]]
        figure.legend(handles=named, loc="outside lower center", ncols=len(named))
    return figure


def _panels(folder: EvaluationFolder) -> dict[str, list[str]]:
    """The levels of each degradation, in the order in which the evaluation has them."""
    record = read_evaluation(folder)
    found: dict[str, list[str]] = {}
    for name in [] if record is None else record.measured["conditions"]:
        degradation, _, level = name.rpartition("/")
        found.setdefault(degradation, []).append(level)
    return found


def _panel(axes: "Axes", name: str, levels: Sequence[str], rows: Sequence[Row], chance: float | None) -> None:
    places, are_shares = places_of_levels(levels)
    place = dict(zip(levels, places, strict=True))
    cycles = sorted({row["cycle"] for row in rows}, key=_number)
    colors = shades(len(cycles)) if len(cycles) > 1 else [line_style(0).get("color")]
    for cycle, color in zip(cycles, colors, strict=True):
        points = sorted((row for row in rows if row["cycle"] == cycle), key=lambda row: place[row["level"]])
        x = [place[row["level"]] for row in points]
        low, high, value = ([float(row[key]) for row in points] for key in ("low", "high", "value"))
        axes.plot(x, value, marker="o", color=color, linestyle="-", label=f"cycle {cycle}" if cycle else None)
        axes.fill_between(x, low, high, color=color, alpha=BAND_OPACITY, linewidth=0)
    if chance is not None:
        axes.axhline(chance, **MARK)
    if not are_shares:
        axes.set_xticks(range(len(levels)), levels)
    axes.tick_params(axis="x", rotation=45 if max(map(len, levels)) > 3 and not are_shares else 0)
    axes.set_title(name, parse_math=False)


def places_of_levels(levels: Sequence[str]) -> tuple[list[float], bool]:
    """Where levels are on an axis, and whether they are shares of 1: these are where they belong; other levels, such as
    sigmas, are chosen to be about equally far apart."""
    numbers = [_number(level) for level in levels]
    are_shares = all(0 <= number <= 1 for number in numbers) and len(levels) > 2
    return (numbers if are_shares else [float(place) for place in range(len(levels))]), are_shares


def _number(level: str) -> float:
    try:
        return float(level)
    except ValueError:
        return math.nan
