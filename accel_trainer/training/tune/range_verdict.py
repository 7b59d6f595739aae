"""Whether the curve of a range test says at which rate the loss falls steepest, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel_trainer.training.tune.lr_finder import (
    LAST_RATE,
    NUM_SKIPPED,
    NUM_STEPS,
    SMOOTHING,
    RangeTestPoint,
    steepest_step,
)

Curve = NDArray[np.float64]
# So many steps at either end of the rates are its edge.
EDGE = 5
# Resampled curves; steps on both sides of one that its trend is the mean of, and whose noise it may have.
NUM_RESAMPLED, TREND_STEPS, NOISE_STEPS = 200, 4, 10
# A single loss counts for at most so many standard deviations of all.
MOST_NOISE = 3.0
# Two rates agree when one is at most so many times the other.
AGREEING_FACTOR = 3.0
# Confidence below which a rate is refused, and below which it is named uncertain.
REFUSED_BELOW, UNCERTAIN_BELOW = 0.5, 0.8
# A curve has a steepest place where it falls there at least so many times as steeply as on the whole way. Of simulated
# curves, straight lines with noise stay below 1.3, and the valleys of published range tests are above.
STEEPER = 2.0
# The running mean of noise alone falls by up to so many of its standard deviations, and a random walk by up to so many
# of those of its end.
NOISE_FALL, WALK_FALL = 5.0, 2.5
# So much may the autocorrelation of a hundred losses differ by chance.
CHANCE = 0.15


@dataclass(frozen=True)
class Verdict:
    """rate: where the loss falls steepest, to three digits; None where the curve does not say. confidence: the part of
    resampled curves whose rate is within a factor of 3 of it, from 0 to 1. reason: why there is no rate, or what makes
    it doubtful; None where nothing does. is_noisy: whether it is refused for noise."""

    rate: float | None
    confidence: float
    reason: str | None = None
    is_noisy: bool = False

    @property
    def advice(self) -> str:
        """What to do where there is no rate."""
        return (
            "a larger batch_size has less noise; or give a number instead" if self.is_noisy else "give a number instead"
        )

    def __str__(self) -> str:
        doubt = "" if self.reason is None else f"; {self.reason}"
        found = "no rate" if self.rate is None else f"{self.rate:g}"
        return f"{found}, confidence {self.confidence:.0%}{doubt}"


def judge(tried: Sequence[RangeTestPoint]) -> Verdict:
    """What a range test has found.

    Refused are a curve that never falls, one whose fall is no larger than its noise, one that falls steepest at either
    edge of the rates that were tried, and one of which resampled curves (a bootstrap of its noise around its trend) do
    not agree. A fall that noise with far outliers, or a random walk, would have as well is in doubt; a loss that still
    falls at the largest rate is named.
    """
    losses = np.array([point.loss for point in tried], dtype=np.float64)
    smoothed = np.array([point.smoothed for point in tried], dtype=np.float64)
    logs = np.log([point.rate for point in tried]) if tried else losses
    step = steepest_step(smoothed, logs)
    if step is None:
        return Verdict(None, 0.0, "has seen no fall of the loss at any rate")
    least = int(smoothed.argmin())
    confidence = _confidence(losses[: least + 1], logs[: least + 1], step)
    rate = float(f"{tried[step].rate:.3g}")
    fall, noise = float(smoothed[NUM_SKIPPED] - smoothed[least]), _noise(losses[: least + 1])
    if fall <= _fall_of_noise(noise):
        why = f"has seen a fall of the loss by {fall:.3g} only, and from step to step it differs by {noise:.3g} anyway"
        return Verdict(None, confidence, why, is_noisy=True)
    is_last = least == len(tried) - 1
    if step < NUM_SKIPPED + EDGE or (is_last and step >= len(tried) - EDGE):
        where = f"{tried[NUM_SKIPPED].rate:.2g} to {tried[-1].rate:.2g}"
        why = f"has seen the loss fall steepest at {rate:g}, at the edge of the rates that were tried ({where})"
        return Verdict(None, confidence, why)
    if confidence < REFUSED_BELOW:
        why = f"has seen a curve so noisy that {rate:g} is a guess (confidence {confidence:.0%})"
        return Verdict(None, confidence, why, is_noisy=True)
    doubts = []
    if confidence < UNCERTAIN_BELOW:
        doubts.append("the curve is noisy")
    if _may_wander(fall, losses[: least + 1]):
        doubts.append(f"the loss falls by {fall:.3g} only, and goes up and down by as much over several steps")
    if _steepness(smoothed, logs, step, least) < STEEPER:
        doubts.append("the loss falls nearly as steeply at other rates")
    if is_last and len(tried) == NUM_STEPS:
        doubts.append(f"the loss still fell at {LAST_RATE:g}, the largest rate: a larger one may be better")
    return Verdict(rate, confidence, "; ".join(doubts) or None)


def _steepness(smoothed: Curve, logs: Curve, step: int, least: int) -> float:
    """How many times as steeply the running mean falls at a step as on the whole way to its least."""
    way = slice(NUM_SKIPPED, least + 1)
    mean = (smoothed[least] - smoothed[NUM_SKIPPED]) / (logs[least] - logs[NUM_SKIPPED])
    return float(np.gradient(smoothed[way], logs[way])[step - NUM_SKIPPED] / mean)


def _fall_of_noise(noise: float) -> float:
    """By how much the running mean of independent noise may fall; noise: its standard deviation from step to step."""
    return float(NOISE_FALL * 2**0.5 * noise * ((1 - SMOOTHING) / (1 + SMOOTHING)) ** 0.5)


def _may_wander(fall: float, losses: Curve) -> bool:
    """Whether noise with far outliers, or a random walk, would have such a fall of the running mean. A walk may end
    anywhere, so that the losses on the way to the least count."""
    of_noise = _fall_of_noise(max(_noise(losses), _plain_noise(losses)))
    of_walk = WALK_FALL * _walk(losses) * (len(losses) - NUM_SKIPPED) ** 0.5
    return fall <= float((of_noise**2 + of_walk**2) ** 0.5)


def _plain_noise(losses: Curve) -> float:
    """The standard deviation from step to step, in which single losses that are far from all others count."""
    return float(np.diff(losses).std() / 2**0.5) if losses.size > 1 else 0.0


def _walk(losses: Curve) -> float:
    """The standard deviation of the steps of a random walk in the losses; 0 where their noise is independent.

    What distinguishes the two is the autocorrelation of the losses around their trend, which is that of a filter: of
    noise by its weights, of a walk by their sums.
    """
    width = 2 * TREND_STEPS + 1
    if len(losses) < width + 2:
        return 0.0
    residuals = losses[TREND_STEPS:-TREND_STEPS] - np.convolve(losses, np.full(width, 1 / width), "valid")
    deviation = 1.4826 * float(np.median(np.abs(residuals)))
    if deviation == 0:
        return 0.0
    residuals = np.clip(residuals, -MOST_NOISE * deviation, MOST_NOISE * deviation)
    weights = np.full(width, -1 / width)
    weights[TREND_STEPS] += 1
    of_noise, of_walk = _autocorrelation(weights), _autocorrelation(np.cumsum(weights))
    part = (_autocorrelation(residuals) - of_noise - CHANCE) / (of_walk - of_noise)
    return deviation * float(np.sqrt(np.clip(part, 0, 1) / np.sum(np.cumsum(weights) ** 2)))


def _autocorrelation(values: Curve) -> float:
    """From one to the next, of values around 0."""
    return float(np.sum(values[1:] * values[:-1]) / np.sum(values**2))


def _noise(losses: Curve) -> float:
    """The standard deviation from step to step, whatever the trend, and whatever single losses are."""
    differences = np.abs(np.diff(losses))
    return float(1.4826 * np.median(differences) / 2**0.5) if differences.size else 0.0


def _confidence(losses: Curve, logs: Curve, step: int) -> float:
    """The part of resampled curves that agree with a step. Their random numbers are always the same."""
    num = len(losses)
    trend = np.array([losses[max(0, n - TREND_STEPS) : n + TREND_STEPS + 1].mean() for n in range(num)])
    width = 2 * TREND_STEPS + 1
    residuals = (losses - trend) * (width / (width - 1)) ** 0.5
    # Where the loss bends, or begins to explode, it is far from its trend without any noise.
    residuals = np.clip(residuals, -MOST_NOISE * _noise(losses), MOST_NOISE * _noise(losses))
    generator = np.random.default_rng(0)
    offsets = generator.integers(-NOISE_STEPS, NOISE_STEPS + 1, size=(NUM_RESAMPLED, num))
    resampled = trend + residuals[np.clip(np.arange(num) + offsets, 0, num - 1)]
    weights = SMOOTHING ** np.abs(np.subtract.outer(np.arange(num), np.arange(num))) * np.tri(num)
    curves = resampled @ (weights / weights.sum(1, keepdims=True)).T
    found = [steepest_step(curve, logs) for curve in curves]
    agreeing = [
        other for other in found if other is not None and abs(logs[other] - logs[step]) <= np.log(AGREEING_FACTOR)
    ]
    return len(agreeing) / NUM_RESAMPLED
