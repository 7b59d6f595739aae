"""The curves of a run: what was measured over epochs and seconds, thinned and rounded to what can be seen."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accel_trainer.run.performance import PerformanceRow

# Of a curve: more could not be told apart on a screen.
MOST_POINTS = 500
TRAIN = "train"
RATE = "lr"
DIGITS = 5


@dataclass(frozen=True)
class Split:
    """What was measured of a split. epochs: (n,); seconds: (n,), those of all passes until then; scores: by name, (n,)
    each, None where it is no number that is finite. Those of `train` have the learning rate, `lr`."""

    epochs: list[int]
    seconds: list[float]
    scores: dict[str, list[float | None]]


def splits_of(rows: Sequence[PerformanceRow]) -> dict[str, Split]:
    """The curves of each split, in the order of the rows; of many epochs every k-th one, and the last."""
    found: dict[str, list[tuple[PerformanceRow, float]]] = {}
    for row, seconds in _with_seconds(rows):
        found.setdefault(row.split, []).append((row, seconds))
    return {name: _split(name, _thinned(points)) for name, points in found.items()}


def names_of_series(splits: Sequence[dict[str, Split]]) -> list[str]:
    """What any run has measured, as `--metric` calls it: of the validation first, then of other splits."""
    names = dict.fromkeys(
        series_name(split, score) for one in splits for split, curves in one.items() for score in curves.scores
    )
    return sorted(names, key=lambda name: ("/" in name, name == f"{TRAIN}/{RATE}"))


def series_name(split: str, score: str) -> str:
    """acc1 of the validation, train/acc1 of another split."""
    return score if split == "val" else f"{split}/{score}"


def rounded(value: float | None, digits: int = DIGITS) -> float | None:
    """A number with as many digits as can be seen; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def _with_seconds(rows: Sequence[PerformanceRow]) -> Iterator[tuple[PerformanceRow, float]]:
    total = 0.0
    for row in rows:
        total += row.seconds
        yield row, total


def _thinned(points: list[tuple[PerformanceRow, float]]) -> list[tuple[PerformanceRow, float]]:
    step = -(-len(points) // MOST_POINTS)
    kept = points[::step] if points else []
    return kept if not points or kept[-1] is points[-1] else [*kept, points[-1]]


def _split(name: str, points: list[tuple[PerformanceRow, float]]) -> Split:
    scores = dict.fromkeys(score for row, _ in points for score in row.scores)
    columns = {score: [rounded(row.scores.get(score)) for row, _ in points] for score in scores}
    if name == TRAIN:
        columns[RATE] = [rounded(row.lr) for row, _ in points]
    return Split([row.epoch for row, _ in points], [rounded(seconds) or 0.0 for _, seconds in points], columns)
