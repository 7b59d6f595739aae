"""The curves of one run: accuracies, loss and learning rate over epochs, below each other in a column of a page."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accel_trainer.config.doubts import TOP
from accel_trainer.core.errors import UserError
from accel_trainer.report.axes import (
    MARK,
    best_note,
    line_style,
    mark_best,
    name_ends,
    name_lines,
    only_whole,
    shades,
    shown_name,
    spans_decades,
)
from accel_trainer.report.compare import best_of, primary_score
from accel_trainer.report.metric_names import LOSS, VALIDATION, cycle_of, score_label, split_name
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import job_of
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.run.records import read_classes, read_config, read_environment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each has its style, whichever of them there are; further data sets have the next ones.
SPLITS = (VALIDATION, "train", "val_ema", "val_swa")
# Of the height of a panel of curves; a little more for what stands above them.
RATE_HEIGHT, TITLE_INCHES, PANEL_HEIGHT = 0.65, 0.35, 0.6


@dataclass(frozen=True)
class About:
    """What the curves are of. num_classes: None where it is not known; primary: the column of the primary metric, best:
    (value, epoch) of it, None where there is none."""

    name: str
    num_classes: int | None
    primary: str | None
    best: tuple[float, int] | None

    @classmethod
    def of(cls, run: RunFolder, rows: Sequence[PerformanceRow]) -> "About":
        """What the run folder says; what it does not is left out."""
        num_classes, metric = None, None
        with suppress(UserError):
            num_classes = len(read_classes(run))
        with suppress(UserError):
            metric = str(read_config(run)["primary_metric"]) if "primary_metric" in read_config(run) else None
        primary = None if metric is None else primary_score(rows, metric)
        best = None if metric is None else best_of(rows, metric)
        return cls(job_of(run, read_environment(run)), num_classes, primary, best)


def run_figure(rows: Sequence[PerformanceRow], about: About) -> "Figure":
    """The figure of a run with a row or more. To be called, and what it gives to be saved, within `style.styled`."""
    import matplotlib
    from matplotlib.figure import Figure

    of_cycles, others = _scores(rows, about)
    panels: list[Sequence[str]] = [[score] for score in others]
    if of_cycles:
        panels.insert(len(panels) - 1, of_cycles)  # before the loss
    rates = [(row.epoch, row.lr) for row in rows if row.split == "train" and math.isfinite(row.lr)]
    heights = [1.0] * len(panels) + [RATE_HEIGHT] * bool(rates)
    width, height = matplotlib.rcParams["figure.figsize"]
    figure = Figure(figsize=(width, PANEL_HEIGHT * height * sum(heights) + TITLE_INCHES))
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for scores, axes in zip(panels, grid, strict=False):
        if scores is of_cycles:
            _draw_cycles(axes, rows, scores)
        else:
            _draw_score(axes, rows, scores[0], about)
    if rates:
        _draw_rates(grid[-1], rates)
    only_whole(grid[-1], [row.epoch for row in rows])
    grid[-1].set_xlabel("epoch")
    if about.best is not None:
        for axes in grid:
            axes.axvline(about.best[1], **MARK)
    figure.suptitle(about.name, parse_math=False)
    figure.align_ylabels()
    name_lines(figure, [axes for axes, scores in zip(grid, panels, strict=False) if scores is not of_cycles])
    for axes, scores in zip(grid, panels, strict=False):
        if scores is of_cycles:
            name_ends(axes)
    return figure


def _scores(rows: Sequence[PerformanceRow], about: About) -> tuple[list[str], list[str]]:
    """Those of single cycles, and those that have a panel each, the loss as the last one: what has any number."""
    named = dict.fromkeys(name for row in rows for name, value in row.scores.items() if math.isfinite(value))
    of_cycles = [name for name in named if cycle_of(name) is not None]
    is_full = about.num_classes is not None and about.num_classes <= TOP
    left_out = {*of_cycles, LOSS, *(["acc5"] if is_full else [])}
    return of_cycles, [*(name for name in named if name not in left_out), *(name for name in named if name == LOSS)]


def _draw_score(axes: "Axes", rows: Sequence[PerformanceRow], score: str, about: About) -> None:
    """A line for each split."""
    further = [split for split in dict.fromkeys(row.split for row in rows) if split not in SPLITS]
    for number, split in enumerate((*SPLITS, *further)):
        points = list(_points(rows, split, score))
        if points:
            _draw_line(axes, points, split_name(split), **line_style(number))
    axes.set_ylabel(score_label(score))
    if about.best is not None and score == about.primary:
        value, epoch = about.best
        mark_best(axes, (epoch, value), line_style(0).get("color"))
        best_note(axes, score, value, epoch)


def _draw_cycles(axes: "Axes", rows: Sequence[PerformanceRow], scores: Sequence[str]) -> None:
    """Validation accuracy of every cycle, the later the darker; the first and the last have their names."""
    for score, shade in zip(scores, shades(len(scores)), strict=True):
        if points := list(_points(rows, VALIDATION, score)):
            name = f"cycle {cycle_of(score)}" if score in (scores[0], scores[-1]) else None
            _draw_line(axes, points, name, color=shade, linestyle="-")
    axes.set_ylabel("accuracy of\ncycles (%)")


def _draw_line(axes: "Axes", points: Sequence[tuple[int, float]], name: str | None, **style: Any) -> None:
    """A single point is marked: a line of it would be nothing."""
    epochs, values = zip(*points, strict=True)
    label, marker = None if name is None else shown_name(name), "o" if len(points) == 1 else None
    axes.plot(epochs, values, label=label, marker=marker, **style)


def _draw_rates(axes: "Axes", rates: Sequence[tuple[int, float]]) -> None:
    """On a logarithmic axis where they span decades, without those that are 0."""
    if spans_decades(rate for _, rate in rates):
        axes.set_yscale("log")
        rates = [(epoch, rate) for epoch, rate in rates if rate > 0]
    epochs, values = zip(*rates, strict=True)
    axes.plot(epochs, values, color="0.25", linestyle="-", marker="o" if len(rates) == 1 else None)
    axes.set_ylabel("learning rate")


def _points(rows: Sequence[PerformanceRow], split: str, score: str) -> Iterator[tuple[int, float]]:
    """(epoch, value) where it was measured, and is a finite number."""
    for row in rows:
        if row.split == split and math.isfinite(row.scores.get(score, math.nan)):
            yield row.epoch, row.scores[score]
