"""A range test says how sure it is: on curves whose answer is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from accel_trainer.report.plots import draw_range_test
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.tune.lr_finder import DIVERGENCE_FACTOR, RangeTestPoint, _smoothed, write_range_test
from accel_trainer.training.tune.range_verdict import Verdict, judge

RATES = np.logspace(-7, 1, 100)
DECADES = np.log10(RATES)
Curve = NDArray[np.float64]


def points_of(losses: Curve) -> list[RangeTestPoint]:
    tried: list[RangeTestPoint] = []
    for rate, loss in zip(RATES, losses, strict=True):
        tried.append(RangeTestPoint(float(rate), float(loss), _smoothed(float(loss), tried)))
    return tried


def learning(steepest: float, *, explodes: bool = True) -> Curve:
    """A logistic fall by 2 whose middle is at that rate, and from a rate of 1 on an explosion."""
    fall = 2.3 - 2 / (1 + np.exp(-4 * (DECADES - np.log10(steepest))))
    return np.asarray(fall + 30 * np.clip(DECADES, 0, None) ** 2 * explodes)


def noise(seed: int, deviation: float) -> Curve:
    return np.random.default_rng(seed).normal(0, deviation, 100)


@pytest.mark.parametrize("steepest", [1e-4, 1e-3, 1e-2])
def test_of_a_clear_curve_the_answer_is_sure(steepest: float) -> None:
    """The running mean is some steps late, by less than a factor of 3."""
    for losses in (learning(steepest), learning(steepest) + noise(1, 0.05)):
        verdict = judge(points_of(losses))
        assert verdict.rate is not None
        assert steepest <= verdict.rate < 3 * steepest
        assert verdict.confidence > 0.95
        assert verdict.reason is None


def test_with_more_noise_the_confidence_falls_and_answers_stay_near_until_refused() -> None:
    confidences = []
    for deviation in (0.0, 0.3, 0.6, 1.0, 2.0):
        verdicts = [judge(points_of(learning(0.01) + noise(seed, deviation))) for seed in range(8)]
        confidences.append(np.mean([verdict.confidence for verdict in verdicts]))
        sure = [verdict.rate for verdict in verdicts if verdict.rate is not None and verdict.reason is None]
        assert all(0.01 / 5 < rate < 0.01 * 10 for rate in sure)
        assert all(verdict.reason for verdict in verdicts if verdict.confidence < 0.8)
    assert confidences == sorted(confidences, reverse=True)
    assert confidences[0] == 1
    assert confidences[-1] < 0.5


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_has_no_rate(seed: int) -> None:
    verdict = judge(points_of(2 + noise(seed, 0.3)))
    assert verdict.rate is None
    assert verdict.reason is not None


NOISES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


def explosion(generator: np.random.Generator) -> Curve:
    return np.asarray(30 * np.clip(DECADES - generator.uniform(-0.5, 0.8), 0, None) ** 2)


def line(generator: np.random.Generator) -> Curve:
    """A straight fall with noise, whose end may be an explosion: no rate on it is better than another."""
    fall = 2.3 - generator.uniform(0.3, 2) * (DECADES + 7) / 8 + generator.normal(0, generator.choice(NOISES), 100)
    return np.asarray(fall + explosion(generator) * generator.integers(2))


def valley(generator: np.random.Generator) -> Curve:
    """A plateau, a fall within a decade or two, and an explosion, as in the range tests of Smith (2017)."""
    steepest, depth, slope = generator.uniform([-4, 0.8, 2], [-1.5, 2, 5])
    fall = 2.3 - depth / (1 + np.exp(-slope * (DECADES - steepest)))
    return np.asarray(fall + explosion(generator) + generator.normal(0, generator.choice(NOISES[:6]), 100))


def heavy_tailed(generator: np.random.Generator) -> Curve:
    return np.asarray(2.3 + 0.3 * generator.standard_t(generator.choice([1.5, 2, 3]), 100))


def random_walk(generator: np.random.Generator) -> Curve:
    return np.asarray(2.3 + np.cumsum(generator.normal(0, 0.05, 100)))


def autocorrelated(generator: np.random.Generator) -> Curve:
    """Each loss keeps nine tenths of how far the one before was off."""
    wanders = np.zeros(100)
    for step, kick in enumerate(generator.normal(0, 0.1, 99), 1):
        wanders[step] = 0.9 * wanders[step - 1] + kick
    return 2.3 + wanders


def verdicts_of(draw: Callable[[np.random.Generator], Curve]) -> list[Verdict]:
    generator = np.random.default_rng(4)
    return [judge(until_divergence(draw(generator))) for _ in range(120)]


def part_that_is_sure(draw: Callable[[np.random.Generator], Curve]) -> float:
    return float(np.mean([verdict.rate is not None and verdict.reason is None for verdict in verdicts_of(draw)]))


def part_that_is_accepted(draw: Callable[[np.random.Generator], Curve]) -> float:
    return float(np.mean([verdict.rate is not None for verdict in verdicts_of(draw)]))


def until_divergence(losses: Curve) -> list[RangeTestPoint]:
    """As a range test ends."""
    tried = points_of(losses)
    least = np.minimum.accumulate([point.smoothed for point in tried])
    ends = [n for n, point in enumerate(tried) if point.smoothed > DIVERGENCE_FACTOR * least[n]]
    return tried[: ends[0] + 1] if ends else tried


def test_of_straight_lines_none_is_sure_and_of_valleys_nearly_all() -> None:
    assert part_that_is_sure(line) == 0
    assert part_that_is_sure(valley) > 0.9


@pytest.mark.parametrize("draw", [heavy_tailed, random_walk, autocorrelated])
def test_noise_with_far_outliers_or_that_wanders_gives_no_rate_without_a_doubt(
    draw: Callable[[np.random.Generator], Curve],
) -> None:
    assert part_that_is_sure(draw) <= 0.05


def test_real_valleys_are_accepted_also_with_a_few_far_outliers() -> None:
    assert part_that_is_accepted(valley) > 0.95
    assert part_that_is_accepted(lambda g: valley(g) + 0.03 * g.standard_t(3, 100)) > 0.9


def test_losses_that_wander_are_doubted_for_it() -> None:
    reasons = [verdict.reason or "" for verdict in verdicts_of(random_walk)]
    assert sum("goes up and down by as much over several steps" in reason for reason in reasons) > 30


def test_a_loss_that_still_falls_at_the_largest_rate_is_named() -> None:
    verdict = judge(points_of(learning(0.01, explodes=False)))
    assert verdict.rate == pytest.approx(0.0215, rel=0.5)
    assert verdict.reason == "the loss still fell at 10, the largest rate: a larger one may be better"


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        (learning(6e-7, explodes=False), "has seen the loss fall steepest at 1.12e-06, at the edge of the rates"),
        (2.3 - (DECADES + 7) ** 4 / 4000, "has seen the loss fall steepest at 10, at the edge of the rates"),
        (1 + (DECADES + 7) / 4, "has seen no fall of the loss at any rate"),
        (np.ones(100), "has seen no fall of the loss at any rate"),
    ],
    ids=["falls at once", "falls faster and faster", "rises", "flat"],
)
def test_a_curve_that_only_falls_at_an_edge_or_never_is_refused(losses: Curve, reason: str) -> None:
    verdict = judge(points_of(losses))
    assert verdict.rate is None
    assert verdict.reason is not None
    assert verdict.reason.startswith(reason)
    assert verdict.advice == "give a number instead"


def test_refused_for_noise_a_larger_batch_is_advised() -> None:
    assert "larger batch_size" in Verdict(None, 0.1, "noise", is_noisy=True).advice


def test_no_test_at_all_has_no_rate() -> None:
    assert judge([]) == Verdict(None, 0.0, "has seen no fall of the loss at any rate")


def test_the_same_curve_has_the_same_confidence() -> None:
    tried = points_of(learning(0.01) + noise(3, 0.5))
    assert judge(tried) == judge(tried)


def test_the_plot_says_the_verdict(tmp_path: Path) -> None:
    """More ink than without it."""
    dark = []
    for note in ("", str(judge(points_of(learning(0.01, explodes=False))))):
        run = RunFolder(tmp_path / f"run{len(note)}")
        run.create()
        write_range_test(run, points_of(learning(0.01)))
        draw_range_test(run, 0.01, note)
        with Image.open(run.lr_finder_plot) as image:
            dark.append(int((np.asarray(image.convert("L"))[:90] < 128).sum()))
    assert dark[1] > dark[0] + 200
