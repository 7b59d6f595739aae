"""What the figure of a run shows: panels, ticks, the best epoch, names of lines."""

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from accel_trainer.report.axes import line_style, spread
from accel_trainer.report.run_figure import About, run_figure
from accel_trainer.report.style import styled
from accel_trainer.run.performance import PerformanceRow

ABOUT = About("a run", 10, "acc1", (80.0, 2))


@pytest.fixture(autouse=True)
def _styled() -> Iterator[None]:
    with styled():
        yield


def rows(epochs: int, *splits: str, rate: float = 0.1, decay: float = 1.0, **scores: float) -> list[PerformanceRow]:
    return [
        PerformanceRow(epoch, split, {"loss": 1 / epoch, **scores}, rate * decay**epoch, 100.0, 1.0)
        for epoch in range(1, epochs + 1)
        for split in splits or ("train", "val")
    ]


def labels(figure: Figure) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes]


def shown_ticks(axes: Axes) -> list[float]:
    low, high = axes.get_xlim()
    return [tick for tick in axes.get_xticks() if low <= tick <= high]


def texts(figure: Figure) -> list[str]:
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [text.get_text() for axes in figure.axes for text in axes.texts] + legends


def test_a_panel_for_each_score_and_the_rate_of_learning() -> None:
    figure = run_figure(rows(3, acc1=80, acc5=99), ABOUT)
    assert labels(figure) == ["accuracy (%)", "top-5 accuracy (%)", "loss", "learning rate"]
    assert figure.axes[-1].get_xlabel() == "epoch"
    assert figure.get_suptitle() == "a run"


@pytest.mark.parametrize(("num_classes", "is_shown"), [(5, False), (6, True), (None, True)])
def test_top_5_is_shown_from_six_classes_on(num_classes: int | None, is_shown: bool) -> None:
    figure = run_figure(rows(3, acc1=80, acc5=99), About("a", num_classes, "acc1", None))
    assert ("top-5 accuracy (%)" in labels(figure)) == is_shown


@pytest.mark.parametrize("scores", [{}, {"acc1": math.nan}])
def test_there_is_no_panel_without_a_number(scores: dict[str, float]) -> None:
    assert labels(run_figure(rows(2, "val", **scores), About("a", None, None, None))) == ["loss"]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 12, 90, 1000])
def test_ticks_are_whole_epochs(epochs: int) -> None:
    ticks = shown_ticks(run_figure(rows(epochs, acc1=80), ABOUT).axes[-1])
    assert ticks
    assert all(tick == int(tick) for tick in ticks)


def test_a_single_epoch_is_points() -> None:
    figure = run_figure(rows(1, acc1=80), About("a", 10, "acc1", None))
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.get_lines())


def test_the_best_epoch_is_marked_and_named_where_its_metric_is() -> None:
    accuracy, loss, _ = run_figure(rows(3, acc1=80), ABOUT).axes
    assert accuracy.get_title(loc="right") == "best epoch: 2 (80.00%)"
    assert loss.get_title(loc="right") == ""
    assert [list(line.get_xydata()[0]) for line in accuracy.get_lines() if line.get_marker() == "o"] == [[2, 80]]


def test_the_best_loss_is_named_as_a_loss() -> None:
    figure = run_figure(rows(3), About("a", None, "loss", (0.333333, 3)))
    assert figure.axes[0].get_title(loc="right") == "best epoch: 3 (0.3333)"


@pytest.mark.parametrize(("decay", "scale"), [(1.0, "linear"), (0.5, "linear"), (0.1, "log")])
def test_the_rate_has_a_logarithmic_axis_where_it_spans_decades(decay: float, scale: str) -> None:
    assert run_figure(rows(3, decay=decay), ABOUT).axes[-1].get_yscale() == scale


def test_averages_and_further_sets_are_told_apart() -> None:
    splits = ("train", "val", "val_ema", "val_swa", "val_blurred")
    figure = run_figure(rows(3, *splits, acc1=80), ABOUT)
    assert sorted(texts(figure)) == ["EMA", "SWA", "blurred", "training", "validation"]
    lines = [line for line in figure.axes[0].get_lines() if not str(line.get_label()).startswith("_")]
    assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in lines}) == 5
    # Those of a split are the same whichever others there are.
    alone = run_figure(rows(3, "val_ema", acc1=80), ABOUT).axes[0].get_lines()[0]
    assert (to_hex(alone.get_color()), alone.get_linestyle()) == next(
        (to_hex(line.get_color()), line.get_linestyle()) for line in lines if line.get_label() == "EMA"
    )


def test_more_lines_than_colors_differ_in_their_dashes() -> None:
    count = len(matplotlib.rcParams["axes.prop_cycle"])
    styles = [tuple(sorted(line_style(number).items())) for number in range(2 * count)]
    assert len(set(styles)) == 2 * count


def test_two_lines_are_named_at_their_ends_in_their_colors() -> None:
    figure = run_figure(rows(4, acc1=80), ABOUT)
    assert not figure.legends
    accuracy = figure.axes[0]
    names = {text.get_text(): text for text in accuracy.texts}
    assert names.keys() == {"training", "validation"}
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in names.values()]
    assert not boxes[0].overlaps(boxes[1])  # though both lines end at 80
    lines: dict[str, Any] = {str(line.get_label()): line for line in accuracy.get_lines()}
    assert all(names[name].get_color() == lines[name].get_color() for name in names)
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_cycles_are_shown_together_and_the_first_and_the_last_are_named() -> None:
    scores = {f"acc1_cycle{cycle}": 70.0 + cycle for cycle in range(4)}
    figure = run_figure(rows(3, acc1=80, **scores), ABOUT)
    assert labels(figure) == ["accuracy (%)", "accuracy of\ncycles (%)", "loss", "learning rate"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["cycle 3", "cycle 0"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([90, 50, 10], [90, 50, 10]),
        ([50, 50], [55, 45]),
        ([100, 100, 20], [100, 90, 20]),
        ([3, 2, 1], [20, 10, 0]),
        ([], []),
    ],
)
def test_names_are_moved_apart_and_no_further(wanted: list[float], expected: list[float]) -> None:
    assert spread(wanted, 10, 100) == pytest.approx(expected)


def test_more_names_than_there_is_room_for_have_no_places() -> None:
    assert spread([50.0] * 12, 10, 100) is None
