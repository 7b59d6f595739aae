"""Plots of a run: performance.png and .pdf from its performance.csv, lr_finder.png from its lr_finder.csv."""

import csv
import os
import sys
import textwrap
import threading
from contextlib import suppress
from itertools import cycle
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from accel_trainer.core.blocks import open_text
from accel_trainer.core.files import replacing
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import MAX_PERFORMANCE, PerformanceRow, read_performance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"train": "tab:blue", "val": "tab:orange", "val_ema": "tab:red", "val_swa": "tab:purple"}
# Of other data sets, in turn.
MORE_COLORS = ("tab:green", "tab:brown", "tab:pink", "tab:olive", "tab:cyan", "tab:gray")
STYLES = ("-", ":", "--", "-.")
CYCLE = "acc1_cycle"
FEW_CURVES = 4


def draw_curves(run: RunFolder) -> None:
    """Draw loss, accuracies and learning rate over epochs, and the accuracy of every cycle where there are several;
    files appear whole, by a rename."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    rows = read_performance(run)
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row.scores if name != "loss"))
    of_cycles = [name for name in names if name.startswith(CYCLE)]
    number = 4 if of_cycles else 3
    figure = Figure(figsize=(4 * number, 3.6), layout="constrained")
    loss, accuracy, *cycles, rate = figure.subplots(1, number)
    _curves(loss, rows, ["loss"], "loss")
    _curves(accuracy, rows, [name for name in names if name not in of_cycles], "accuracy (%)")
    for axes in cycles:
        _cycle_curves(axes, rows, of_cycles)
    train = [row for row in rows if row.split == "train"]
    rate.plot([row.epoch for row in train], [row.lr for row in train], color="tab:green")
    rate.set(xlabel="epoch", ylabel="learning rate")
    figure.suptitle(run.path.name, parse_math=False)
    for suffix, dpi in (("png", 120), ("pdf", 72)):
        with replacing(run.plot(suffix), aside_in=run.aside) as aside:
            figure.savefig(aside, format=suffix, dpi=dpi, **no_date(suffix))


def _curves(axes: "Axes", rows: list[PerformanceRow], names: list[str], label: str) -> None:
    """A color for each split, a style for each score."""
    further = dict.fromkeys(row.split for row in rows if row.split not in COLORS)
    for split, color in (COLORS | dict(zip(further, cycle(MORE_COLORS), strict=False))).items():
        for name, style in zip(names, cycle(STYLES), strict=False):
            title = split if len(names) == 1 else f"{split} {name}"
            _curve(axes, [row for row in rows if row.split == split], name, title, color=color, linestyle=style)
    axes.set(xlabel="epoch", ylabel=label)
    many = len(axes.lines) > FEW_CURVES
    axes.legend(fontsize="x-small" if many else None, ncols=2 if many else 1)


def _cycle_curves(axes: "Axes", rows: list[PerformanceRow], names: list[str]) -> None:
    """Validation accuracy of every cycle, the later the darker."""
    from matplotlib import colormaps

    shades = colormaps["viridis_r"]
    for number, name in enumerate(names):
        color = shades((number + 1) / len(names))
        _curve(axes, [r for r in rows if r.split == "val"], name, name.removeprefix(CYCLE), color=color)
    axes.set(xlabel="epoch", ylabel="validation accuracy (%)")
    axes.legend(title="cycle")


def _curve(axes: "Axes", rows: list[PerformanceRow], name: str, title: str, **style: Any) -> None:
    """One score over the epochs in which it was measured; a single point is marked, a line of it would be nothing."""
    measured = [row for row in rows if name in row.scores]
    if measured:
        marker = "o" if len(measured) == 1 else None
        axes.plot(
            [row.epoch for row in measured], [row.scores[name] for row in measured], marker=marker, label=title, **style
        )


def no_date(suffix: str) -> dict[str, Any]:
    """The same numbers give the same file."""
    return {"metadata": {"CreationDate": None}} if suffix == "pdf" else {}


def draw_range_test(run: RunFolder, found: float | None, note: str = "") -> None:
    """Draw the losses of a range test over its learning rates, and the rate that was found, if one was. note: what is
    to be said of it.

    The file appears whole, by a rename.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with open_text(run.lr_finder, MAX_PERFORMANCE) as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["rate"]) for row in rows]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, [float(row["loss"]) for row in rows], ".", color="tab:blue", alpha=0.4, label="loss of a step")
    axes.plot(rates, [float(row["smoothed"]) for row in rows], color="tab:blue", label="running mean")
    if found is not None:
        axes.axvline(found, color="tab:orange", label=f"steepest: {found:g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.legend()
    if note:
        axes.set_title(textwrap.fill(note, 80), fontsize=8, parse_math=False)
    figure.suptitle(run.path.name, parse_math=False)
    with replacing(run.lr_finder_plot, aside_in=run.aside) as aside:
        figure.savefig(aside, format="png", dpi=120)


def serve(run: RunFolder) -> None:
    """Draw for every line on standard input; lines that arrive while it draws cause one drawing together."""
    with suppress(OSError):
        os.nice(10)
    requests: SimpleQueue[bool] = SimpleQueue()

    def listen() -> None:
        for _ in sys.stdin:
            requests.put(True)
        requests.put(False)  # the training has ended

    threading.Thread(target=listen, daemon=True).start()
    is_open = True
    while is_open:
        waiting = [requests.get()]
        while not requests.empty():
            waiting.append(requests.get())
        if any(waiting):
            try:
                draw_curves(run)
            except FileNotFoundError:
                if run.aside is None or run.aside.is_dir():
                    raise
                return  # the run is another process's
        is_open = all(waiting)
