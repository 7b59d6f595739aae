"""The losses of a range test over its learning rates, and the rate that was found."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from accel_trainer.report.axes import MARK, line_style, name_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = 58
# Of the fall of the running mean, around the losses before its least.
ROOM_ABOVE, ROOM_BELOW = 0.3, 0.1


def range_test_figure(rows: Sequence[Mapping[str, float]], found: float | None, name: str, note: str) -> "Figure":
    """rows: `rate`, `loss` and `smoothed` of each step. found: the rate that was chosen, None for none; note: what is
    to be said of it. To be called, and what it gives to be saved, within `style.styled`."""
    import matplotlib
    from matplotlib.figure import Figure

    width, height = matplotlib.rcParams["figure.figsize"]
    lines = textwrap.wrap(note, LETTERS)
    figure = Figure(figsize=(width, height + 0.15 * len(lines)))
    axes = figure.subplots()
    rates, smoothed = [row["rate"] for row in rows], [row["smoothed"] for row in rows]
    color = line_style(0).get("color")
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.2, "markeredgewidth": 0, "linestyle": "none", "alpha": 0.45}
    axes.plot(rates, [row["loss"] for row in rows], **dots, color=color, label="loss of a step")
    axes.plot(rates, smoothed, color=color, linestyle="-", label="running mean")
    if found is not None:
        chosen = line_style(1).get("color")
        at = min(rows, key=lambda row: abs(math.log(row["rate"] / found)))
        axes.axvline(found, **{**MARK, "color": chosen})
        axes.plot(found, at["smoothed"], "o", color=chosen, label=f"chosen: {found:.3g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss of a training batch")
    if (limits := shown_losses([row["loss"] for row in rows], smoothed)) is not None:
        axes.set_ylim(*limits)
    figure.suptitle(name, parse_math=False)
    if lines:
        axes.set_title("\n".join(lines), parse_math=False)
    name_lines(figure, [axes], at_ends=False)
    return figure


def shown_losses(losses: Sequence[float], smoothed: Sequence[float]) -> tuple[float, float] | None:
    """The losses between which a range test says something: from the least of all to a little above those before the
    running mean is least; what diverges after that is cut off. None where nothing falls, and all is shown."""
    finite = [value for value in smoothed if math.isfinite(value)]
    if not finite:
        return None
    end = finite.index(min(finite)) + 1
    low, high = min(losses[:end]), max(losses[:end])
    fall = max(finite[:end]) - finite[end - 1]
    if fall <= 0:
        return None
    return low - ROOM_BELOW * fall, high + ROOM_ABOVE * fall
