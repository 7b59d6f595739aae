"""How unlike the patterns are that images evoke: vectors of dissimilarities, in the order of scipy's `pdist`."""

from collections.abc import Iterator
from enum import StrEnum

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.representations.rows import Floats, Rows

# In memory at once: rows that others are compared with, these others, and dissimilarities.
OUTER_BYTES, INNER_BYTES, RESULT_BYTES = 192 * 2**20, 32 * 2**20, 32 * 2**20
# Of |a|² + |b|² - 2ab digits are lost where a is near b: below this part of |a|² + |b|² it is |a - b|² instead.
NEAR = 0.01


class Distance(StrEnum):
    """docs/rsa.md has the definition of each."""

    PEARSON = "pearson"
    SPEARMAN = "spearman"
    EUCLIDEAN = "euclidean"
    SQUARED_EUCLIDEAN = "squared-euclidean"
    CROSSNOBIS = "crossnobis"


def dissimilarities(patterns: Rows, distance: Distance) -> Floats:
    """Of patterns (n, values) the n (n - 1) / 2 dissimilarities, float64, in the order of scipy's `pdist`:
    (0, 1), (0, 2), ..., (1, 2), ... `squareform` makes a matrix of them.

    `pearson` 1 - r, `spearman` 1 - rho with mean ranks of ties, in 0..2, NaN for a pattern without variance;
    `euclidean`, `squared-euclidean`. Raises UserError for `crossnobis`, which needs repeats, and fewer than two
    patterns."""
    found, start = np.empty(num_pairs(patterns.shape[0])), 0
    for piece in dissimilarity_blocks(patterns, distance):
        found[start : start + len(piece)] = piece
        start += len(piece)
    return found


def num_pairs(num_patterns: int) -> int:
    """How many pairs there are of so many."""
    return num_patterns * (num_patterns - 1) // 2


def dissimilarity_blocks(patterns: Rows, distance: Distance) -> Iterator[Floats]:
    """`dissimilarities`, piece by piece: of the patterns some rows at a time are in memory. A piece is to be used
    before the next."""
    num, values = patterns.shape
    if num < 2:
        raise UserError(f"{num} patterns have no dissimilarities: two are needed at least")
    num_outer = _rows_in(min(OUTER_BYTES // max(1, 8 * values), RESULT_BYTES // (8 * num)), num)
    num_inner = _rows_in(INNER_BYTES // max(1, 8 * values), num)
    # Used again and again: what is freed is not always given back.
    outer, inner = np.empty((num_outer, values)), np.empty((num_inner, values))
    results = np.empty(num_outer * num)
    for start in range(0, num, num_outer):
        rows = outer[: num - start]
        for begin in range(0, len(rows), num_inner):
            part = rows[begin : begin + num_inner]
            part[:] = patterns[start + begin : start + begin + len(part)]
        _prepare(rows, distance)
        found = results[: len(rows) * (num - start)].reshape(len(rows), -1)
        for begin in range(start, num, num_inner):
            others = inner[: num - begin]
            others[:] = patterns[begin : begin + len(others)]
            _prepare(others, distance)
            found[:, begin - start : begin - start + len(others)] = _between(rows, others, distance)
        for place, row in enumerate(found):
            if (after := row[place + 1 :]).size:
                yield after


def _rows_in(wanted: int, num: int) -> int:
    return max(1, min(wanted, num))


def _prepare(rows: Floats, distance: Distance) -> None:
    """In place; for correlations of norm 1 and mean 0."""
    if distance is Distance.SPEARMAN:
        from scipy.stats import rankdata

        for row in rows:
            row[:] = rankdata(row)
    if distance in (Distance.PEARSON, Distance.SPEARMAN):
        rows[rows.max(1) == rows.min(1)] = np.nan  # which rounding may give a little variance
        rows -= rows.mean(1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            rows /= np.sqrt(_squares(rows))[:, None]


def _between(rows: Floats, others: Floats, distance: Distance) -> Floats:
    """(rows, others)."""
    match distance:
        case Distance.PEARSON | Distance.SPEARMAN:
            return np.clip(1 - rows @ others.T, 0, 2)
        case Distance.SQUARED_EUCLIDEAN:
            return _squared_euclidean(rows, others)
        case Distance.EUCLIDEAN:
            return np.sqrt(_squared_euclidean(rows, others))
        case Distance.CROSSNOBIS:
            raise UserError("crossnobis needs repeats: it is a function of its own")


def _squared_euclidean(rows: Floats, others: Floats) -> Floats:
    scale = _squares(rows)[:, None] + _squares(others)
    found: Floats = scale - 2 * (rows @ others.T)
    for place, is_near in enumerate(found < NEAR * scale):
        near = np.flatnonzero(is_near)
        found[place, near] = [_squares(others[[other]] - rows[place])[0] for other in near.tolist()]
    return found


def _squares(rows: Floats) -> Floats:
    """|row|² of each."""
    found: Floats = np.einsum("ij,ij->i", rows, rows)
    return found
