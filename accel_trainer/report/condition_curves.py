"""Accuracy over the levels of each degradation, curves.png and .pdf, from the summary of an evaluation."""

import csv
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from accel_trainer.core.blocks import open_text
from accel_trainer.core.files import replacing
from accel_trainer.report.plots import no_date
from accel_trainer.run.evaluations import MAX_SUMMARY, EvaluationFolder, read_evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and gray of Okabe and Ito, which all readers tell apart.
COLOR, CHANCE_COLOR = "#0072B2", "#999999"
PANEL_INCHES, MOST_COLUMNS = (2.4, 2.1), 6
# More cycles than these have a scale of colors in place of a legend's lines.
FEW_CYCLES = 6

Row = Mapping[str, str]


def draw_condition_curves(folder: EvaluationFolder, chance: float | None) -> None:
    """Draw a panel for each degradation: accuracy with its interval over the level, of each cycle; the files appear
    whole. chance: the accuracy (0..1) of guessing. Nothing is drawn where images were not degraded."""
    figure = condition_curves(folder, chance)
    if figure is None:
        return
    for suffix, dpi in (("png", 120), ("pdf", 72)):
        with replacing(folder.curves(suffix)) as aside:
            figure.savefig(aside, format=suffix, dpi=dpi, **no_date(suffix))


def condition_curves(folder: EvaluationFolder, chance: float | None) -> "Figure | None":
    """The figure itself; None where images were not degraded."""
    import matplotlib.figure

    with open_text(folder.summary, MAX_SUMMARY) as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    panels = _panels(folder)
    if not panels or not rows or "degradation" not in rows[0]:
        return None
    columns = min(len(panels), MOST_COLUMNS)
    lines = -(-len(panels) // columns)
    width, height = PANEL_INCHES
    figure = matplotlib.figure.Figure(figsize=(columns * width + 0.8, lines * height + 0.6), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for (name, levels), axes in zip(panels.items(), grid.flat, strict=False):
        _panel(axes, name, levels, [row for row in rows if row["degradation"] == name], chance)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set(ylabel="accuracy", ylim=(0, 1))
    figure.suptitle(rows[0]["observer"], parse_math=False)
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
    from matplotlib import colormaps

    numbers = [_number(level) for level in levels]
    # Shares of 1 are where they belong; other levels, such as sigmas, are chosen to be about equally far apart.
    are_shares = all(0 <= number <= 1 for number in numbers) and len(levels) > 2
    place = dict(zip(levels, numbers if are_shares else range(len(levels)), strict=True))
    cycles = sorted({row["cycle"] for row in rows}, key=_number)
    for number, cycle in enumerate(cycles):
        color: Any = COLOR if len(cycles) == 1 else colormaps["viridis_r"]((number + 1) / len(cycles))
        points = sorted((row for row in rows if row["cycle"] == cycle), key=lambda row: place[row["level"]])
        x = [place[row["level"]] for row in points]
        low, high, value = ([float(row[key]) for row in points] for key in ("low", "high", "value"))
        axes.plot(x, value, marker="o", markersize=3, color=color, label=f"cycle {cycle}" if cycle else None)
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    if chance is not None:
        axes.axhline(chance, color=CHANCE_COLOR, linestyle=":", linewidth=1)
    if not are_shares:
        axes.set_xticks(range(len(levels)), levels)
    axes.tick_params(labelsize="small", axis="x", rotation=45 if max(map(len, levels)) > 3 and not are_shares else 0)
    axes.set_title(name, fontsize="small", parse_math=False)
    if 1 < len(cycles) <= FEW_CYCLES:
        axes.legend(fontsize="x-small")


def _number(level: str) -> float:
    try:
        return float(level)
    except ValueError:
        return math.nan
