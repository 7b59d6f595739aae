"""Accuracy with Wilson intervals, by condition and by class, and confusion matrices."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from accel_trainer.measures.factor import in_order
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Blocks, Cell, blocks_of, in_table_order

CONFIDENCE = 0.95


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of Wilson (1927) for a share: (low, high) in 0..1, NaN for no trials.

    It has the share in it, and stays in 0..1 where the share is 0 or 1.
    """
    if n == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The ends are exact where rounding would miss them.
    return (0.0 if successes == 0 else center - half), (1.0 if successes == n else center + half)


def share(cell: Cell, metric: str, successes: int, n: int, confidence: float = CONFIDENCE) -> Figure:
    """successes / n with its Wilson interval; NaN for no trials."""
    low, high = wilson(successes, n, confidence)
    return Figure(cell, metric, successes / n if n else math.nan, low, high, n)


def accuracy(trials: Blocks, by: Sequence[str] | None = None, confidence: float = CONFIDENCE) -> list[Figure]:
    """`accuracy` (0..1) of each observer under each combination of the conditions `by`; None: of all conditions.

    Trials are read once, block by block.
    """
    counts = dict[Cell, list[int]]()
    for block in blocks_of(trials):
        group, cells = block.grouped(by)
        numbers = np.bincount(group, minlength=len(cells))
        right = np.bincount(group[block.correct], minlength=len(cells))
        for cell, successes, n in zip(cells, right.tolist(), numbers.tolist(), strict=True):
            one = counts.setdefault(cell, [0, 0])
            one[0] += successes
            one[1] += n
    return [
        share(cell, "accuracy", successes, n, confidence)
        for cell, (successes, n) in sorted(counts.items(), key=lambda item: in_table_order(item[0]))
    ]


def class_accuracy(trials: Blocks, by: Sequence[str] | None = None, confidence: float = CONFIDENCE) -> list[Figure]:
    """`class_accuracy` (0..1): as `accuracy`, of the images of each true class (recall)."""
    matrices = confusion(trials, by)
    return [
        share(one.cell.under(true_class=name), "class_accuracy", int(right), int(n), confidence)
        for one in matrices
        for name, right, n in zip(one.true_classes, one.correct, one.counts.sum(1), strict=True)
    ]


@dataclass(frozen=True)
class Confusion:
    """counts: (true classes, responses) int64; responses has those that are no class ("na") too.

    correct: (true classes,) int64, the trials of each class that count as correct.
    """

    cell: Cell
    true_classes: tuple[str, ...]
    responses: tuple[str, ...]
    counts: NDArray[np.int64]
    correct: NDArray[np.int64]

    def figures(self) -> list[Figure]:
        """`confusion` (0..1): the share of a class's trials that had a response, with n the trials of that class. Pairs
        that never came are left out."""
        rows, columns = np.nonzero(self.counts)
        n = self.counts.sum(1)
        return [
            share(
                self.cell.under(true_class=self.true_classes[row], response=self.responses[column]),
                "confusion",
                int(self.counts[row, column]),
                int(n[row]),
            )
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]


def confusion(trials: Blocks, by: Sequence[str] | None = None) -> list[Confusion]:
    """The confusion matrix of each cell. Trials are read once, block by block."""
    pairs: defaultdict[Cell, defaultdict[tuple[str, str], NDArray[np.int64]]]
    pairs = defaultdict(lambda: defaultdict(lambda: np.zeros(2, np.int64)))
    for block in blocks_of(trials):
        for cell, rows in block.cells(by):
            truth, response = block.true_class.select(rows), block.response.select(rows)
            code = truth.codes.astype(np.int64) * len(response.levels) + response.codes
            found, place, n = np.unique(code, return_inverse=True, return_counts=True)
            right = np.bincount(place.reshape(-1)[block.correct[rows]], minlength=len(found))
            for one, count, correct in zip(found.tolist(), n.tolist(), right.tolist(), strict=True):
                pair = truth.levels[one // len(response.levels)], response.levels[one % len(response.levels)]
                pairs[cell][pair] += (count, correct)
    return [_matrix(cell, pairs[cell]) for cell in sorted(pairs, key=in_table_order)]


def _matrix(cell: Cell, pairs: "defaultdict[tuple[str, str], NDArray[np.int64]]") -> Confusion:
    truth = in_order({first for first, _ in pairs})
    # The classes first, in the order of the rows, then what else was answered.
    others = {second for _, second in pairs} - set(truth)
    responses = (*truth, *in_order(others))
    counts = np.zeros((len(truth), len(responses)), np.int64)
    correct = np.zeros(len(truth), np.int64)
    row, column = ({name: place for place, name in enumerate(names)} for names in (truth, responses))
    for (first, second), (count, right) in pairs.items():
        counts[row[first], column[second]] = count
        correct[row[first]] += right
    return Confusion(cell, truth, responses, counts, correct)
