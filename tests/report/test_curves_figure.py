"""Figures of several runs where there is little room, or much to be drawn."""

from collections.abc import Iterator

import pytest
from matplotlib.figure import Figure

from accel_trainer.report.curves import Curve
from accel_trainer.report.curves_figure import MOST_NAMED, Look, curves_figure
from accel_trainer.report.style import styled


@pytest.fixture(autouse=True)
def in_style() -> Iterator[None]:
    with styled():
        yield


def curve(name: str) -> Curve:
    return Curve(name, [1, 2, 3], [10, 20, 30], best=(3, 30), best_epoch=3)


def figure_of(count: int, size: tuple[float, float] | None = None) -> Figure:
    return curves_figure(
        {"acc1": [curve(f"a run with a name {number}") for number in range(count)]}, "epoch", Look(size=size)
    )


@pytest.mark.parametrize("size", [(3.3, 2.1), (7.0, 3.0), None])
def test_the_label_of_a_panel_is_no_longer_than_the_panel(size: tuple[float, float] | None) -> None:
    figure = figure_of(6, size)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.yaxis.label.get_text().split() == ["validation", "accuracy", "(%)"]
    label = axes.yaxis.label.get_window_extent()
    assert label.height <= axes.bbox.height or axes.yaxis.label.get_fontsize() == 4
    assert label.y0 >= 0
    assert label.y1 <= figure.bbox.height


@pytest.mark.parametrize(("count", "marked", "named"), [(3, 3, 3), (7, 0, 7), (MOST_NAMED + 1, 0, 0)])
def test_many_lines_are_not_marked_and_too_many_have_no_names(count: int, marked: int, named: int) -> None:
    figure = figure_of(count)
    (axes,) = figure.axes
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert len(curves) == count
    assert len(axes.get_lines()) - count == marked
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert len(names) == named
    styles = {(line.get_color(), line.get_linestyle(), str(line._unscaled_dash_pattern)) for line in curves}
    assert len(styles) == min(count, MOST_NAMED)
