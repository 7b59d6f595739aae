"""What axes of curves have in common: whole epochs, scales, and names beside the ends of lines."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from accel_trainer.report.metric_names import LOSS, split_and_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

POINTS_PER_INCH = 72
# Beside the ends of lines there is room for so many names, of so many characters.
MOST_LABELS, LONGEST_LABEL = 6, 18
# A name may stand so many lines of text away from where its line ends.
MOST_MOVED = 1.6
LABEL_GAP = 4
# Of a label that has no room, in points.
SMALLEST_LABEL = 4.0
# How wide a letter is, of its height.
LETTER = 0.6
# Of the band of a standard deviation or an interval.
BAND_OPACITY = 0.2
# A line to mark something, which is no curve.
MARK: dict[str, Any] = {"color": "0.55", "linewidth": 0.8, "linestyle": (0, (1, 1.5)), "zorder": 1.5}


def line_style(number: int) -> dict[str, Any]:
    """Color and dashes of a curve by its number: those of the style sheet. When all colors were used, they begin again
    with other dashes."""
    import matplotlib

    of_sheet = matplotlib.rcParams["axes.prop_cycle"].by_key()
    turn, place = divmod(number, len(next(iter(of_sheet.values()))))
    style = {name: values[place] for name, values in of_sheet.items()}
    if turn and "linestyle" in style:
        dashes = list(dict.fromkeys(of_sheet["linestyle"]))
        style["linestyle"] = dashes[(dashes.index(style["linestyle"]) + turn) % len(dashes)]
    return style


def shades(number: int) -> list[Any]:
    """Colors of things that come one after the other, such as cycles: the later the darker."""
    import matplotlib

    scale = matplotlib.colormaps[matplotlib.rcParams["image.cmap"]].reversed()
    return [scale(0.15 + 0.85 * place / max(1, number - 1)) for place in range(number)]


def only_whole(axes: "Axes", epochs: Iterable[float]) -> None:
    """Ticks of the horizontal axis at whole epochs only; a single epoch has half an epoch beside it."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    there = set(epochs)
    if len(there) == 1:
        (epoch,) = there
        axes.set_xlim(epoch - 0.5, epoch + 0.5)


def log_scale(axes: "Axes") -> None:
    """A logarithmic vertical axis of what is drawn, whose numbers are written out; below two decades also 2 and 5."""
    low, high = axes.get_ylim()
    is_short = high < 100 * max(low, 1e-300)

    def minor(value: float, place: float) -> str:
        return f"{value:g}" if is_short and f"{value:e}"[0] in "25" else ""

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(minor)


def spans_decades(values: Iterable[float]) -> bool:
    """Whether positive numbers among these are ten times as large as others."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    return bool(positive) and max(positive) >= 10 * min(positive)


def mark_best(axes: "Axes", place: tuple[float, float], color: Any) -> None:
    """Mark the best epoch on a curve."""
    axes.plot(*place, marker="o", markersize=5.5, color=color, markeredgecolor="white", linestyle="none", zorder=4)


def best_note(axes: "Axes", metric: str, value: float, epoch: int) -> None:
    """Say above a panel which epoch is the best one, and what the metric is there."""
    score = split_and_score(metric)[1]
    shown = f"{value:.4g}" if score == LOSS else f"{value:.2f}%"
    axes.set_title(f"best epoch: {epoch} ({shown})", loc="right")


def shown_name(name: str) -> str:
    """A name as a legend shows it, which leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def name_lines(figure: "Figure", panels: Sequence["Axes"], *, may_grow: bool = True, at_ends: bool = True) -> None:
    """Name the labeled lines of panels, a name having one style in all. at_ends: beside their ends where there
    is room for that in all panels; else in one legend below, for which the figure grows if it may."""
    named = {axes: _named(axes) for axes in panels}
    lines = {str(line.get_label()): line for found in named.values() for line in found}
    if not lines:
        return
    figure.draw_without_rendering()  # which lays the panels out
    if at_ends and len(lines) <= MOST_LABELS and max(map(len, lines)) <= LONGEST_LABEL:
        places = {axes: _places(axes, found) for axes, found in named.items()}
        if all(place is not None for place in places.values()):
            for axes, found in named.items():
                _label_ends(axes, found, places[axes] or [])
            return
    names = [_cut(figure, name) for name in lines]
    columns = _columns(figure, names)
    if may_grow:
        rows = -(-len(names) // columns)
        figure.set_figheight(figure.get_figheight() + 1.4 * rows * _label_size() / POINTS_PER_INCH)
    legend = figure.legend(list(lines.values()), names, loc="outside lower center", ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)


def fit_labels(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """Break vertical labels that are longer than their panel into two lines, and make those smaller that still are."""
    figure.draw_without_rendering()
    for axes in panels:
        label, room = axes.yaxis.label, axes.bbox.height
        if label.get_window_extent().height <= room:
            continue
        words = str(label.get_text()).split(" ")
        middle = min(range(1, len(words)), key=lambda cut: _longest(words, cut), default=0)
        if middle:
            label.set_text(f"{' '.join(words[:middle])}\n{' '.join(words[middle:])}")
        if (length := label.get_window_extent().height) > room:
            label.set_fontsize(max(SMALLEST_LABEL, float(label.get_fontsize()) * room / length))


def _longest(words: Sequence[str], cut: int) -> int:
    return max(len(" ".join(part)) for part in (words[:cut], words[cut:]))


def name_ends(axes: "Axes") -> None:
    """Name the labeled lines of a panel that is laid out beside their ends, of which there are few."""
    lines = _named(axes)
    _label_ends(axes, lines, _places(axes, lines, math.inf) or [0.0] * len(lines))


def _named(axes: "Axes") -> list["Line2D"]:
    """The lines with a name, from the highest end to the lowest."""
    named = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_") and _end(line) is not None]
    return sorted(named, key=lambda line: -(_end(line) or (0.0, 0.0))[1])


def _end(line: "Line2D") -> tuple[float, float] | None:
    """The last point of a line that is one."""
    import numpy as np

    points = np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])
    whole = points[np.isfinite(points).all(axis=1)]
    return (float(whole[-1, 0]), float(whole[-1, 1])) if len(whole) else None


def _places(axes: "Axes", lines: Sequence["Line2D"], most_moved: float = MOST_MOVED) -> list[float] | None:
    """How far above the lower edge of the panel the names of these lines stand, in points, so that none is in the way
    of another; None where they would stand too far from the ends, or the ends are not below each other."""
    ends = [end for line in lines if (end := _end(line)) is not None]
    low, high = axes.get_xlim()
    if len({round((x - low) / (high - low), 2) for x, _ in ends}) > 1:
        return None
    height = axes.bbox.height * POINTS_PER_INCH / axes.figure.dpi
    across = axes.transAxes.inverted()
    wanted = [float(across.transform(axes.transData.transform(end))[1]) * height for end in ends]
    size = _label_size()
    places = spread(wanted, 1.15 * size, height)
    if places is None or max(abs(a - b) for a, b in zip(places, wanted, strict=True)) > most_moved * size:
        return None
    return places


def spread(wanted: Sequence[float], gap: float, height: float) -> list[float] | None:
    """The places nearest to those wanted, which fall, that are `gap` apart or more, within 0..height; None where there
    is no room for them.

    Neighbors that are too near are moved together, as in isotonic regression by pooling.
    """
    if (len(wanted) - 1) * gap > height:
        return None
    # Without the gaps above them, places only have to fall.
    pools: list[list[float]] = []
    for number, place in enumerate(wanted):
        pools.append([place + number * gap])
        while len(pools) > 1 and _mean(pools[-2]) < _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    falling = [_mean(pool) for pool in pools for _ in pool]
    lowest, highest = (len(wanted) - 1) * gap, height
    return [min(max(place, lowest), highest) - number * gap for number, place in enumerate(falling)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _label_size() -> float:
    """Of a legend's text, in points."""
    import matplotlib
    from matplotlib.font_manager import FontProperties

    return float(FontProperties(size=matplotlib.rcParams["legend.fontsize"]).get_size_in_points())


def _label_ends(axes: "Axes", lines: Sequence["Line2D"], places: Sequence[float]) -> None:
    """Write the name of each line to the right of the panel, in its color."""
    for line, place in zip(lines, places, strict=True):
        axes.annotate(
            str(line.get_label()).strip(),
            xy=(1, 0),
            xycoords="axes fraction",
            xytext=(LABEL_GAP, place),
            textcoords="offset points",
            color=line.get_color(),
            fontsize=_label_size(),
            verticalalignment="center",
            annotation_clip=False,
            parse_math=False,
        )


def _cut(figure: "Figure", name: str) -> str:
    """A name that is not wider than the figure: of a longer one its beginning and its end."""
    most = int(figure.get_figwidth() * POINTS_PER_INCH / (LETTER * _label_size())) - 8
    half = max(1, (most - 1) // 2)
    return name if len(name) <= most else f"{name[:half]}\u2026{name[-half:]}"


def _columns(figure: "Figure", names: Sequence[str]) -> int:
    """How many names stand beside each other in a legend."""
    size = _label_size()
    width = max(map(len, names)) * LETTER * size + 5 * size
    return max(1, min(len(names), int(figure.get_figwidth() * POINTS_PER_INCH / width)))
