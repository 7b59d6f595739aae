"""How alike two dissimilarity matrices are, and how well several could be predicted at best."""

from enum import StrEnum
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from accel_trainer.representations.dissimilarity import num_pairs
from accel_trainer.representations.rows import Floats

Mask = NDArray[np.bool_]


class Similarity(StrEnum):
    """docs/rsa.md has the definition of each."""

    SPEARMAN = "spearman"
    KENDALL_TAU_A = "kendall-tau-a"
    PEARSON = "pearson"
    COSINE = "cosine"
    WHITENED_COSINE = "whitened-cosine"


def similarities(first: Floats, second: Floats, kind: Similarity, kept: Mask | None = None) -> Floats:
    """Of each of r vectors (r, pairs) with each of s (s, pairs): (r, s), -1..1. NaN with a vector that has a NaN, and
    but for Kendall's with one that has no variance, or for cosines no length.

    kept: where given, which pairs of the conditions these vectors have, (all pairs,): a matrix has others too.
    """
    match kind:
        case Similarity.KENDALL_TAU_A:
            return np.array([[kendall_tau_a(one, other) for other in second] for one in first])
        case _:
            return _directions(first, kind, kept) @ _directions(second, kind, kept).T


def kendall_tau_a(first: Floats, second: Floats) -> float:
    """Of all pairs of the n values in each vector, how many are ordered alike less how many are ordered otherwise, over
    n (n - 1) / 2: those that are tied in one of them count as neither."""
    from scipy.stats import kendalltau

    if np.isnan(first).any() or np.isnan(second).any():
        return float("nan")
    pairs = num_pairs(len(first))
    untied = [pairs - _ties(values) for values in (first, second)]
    if 0 in untied:
        return 0.0
    tau_b = kendalltau(first, second, method="asymptotic").statistic
    return float(tau_b * np.sqrt(untied[0] / pairs) * np.sqrt(untied[1] / pairs))


def _ties(values: Floats) -> int:
    """How many pairs of values are equal."""
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _directions(vectors: Floats, kind: Similarity, kept: Mask | None) -> Floats:
    """Vectors of length 1 whose products are the similarities; NaN where a vector has no direction."""
    match kind:
        case Similarity.SPEARMAN | Similarity.KENDALL_TAU_A:
            found = _centered(_ranks(vectors))
        case Similarity.PEARSON:
            found = _centered(vectors)
        case Similarity.COSINE:
            found = vectors
        case Similarity.WHITENED_COSINE:
            found = _whitened(vectors, kept)
        case _:
            assert_never(kind)
    with np.errstate(invalid="ignore", divide="ignore"):
        return found / _lengths(found)


def _ranks(vectors: Floats) -> Floats:
    from scipy.stats import rankdata

    found: Floats = rankdata(vectors, axis=1)
    return found


def _centered(vectors: Floats) -> Floats:
    found: Floats = vectors - vectors.mean(1, keepdims=True)
    found[vectors.max(1) == vectors.min(1)] = 0.0  # which rounding may give a little variance
    return found


def _lengths(vectors: Floats) -> Floats:
    found: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def _whitened(vectors: Floats, kept: Mask | None) -> Floats:
    """Whose cosine is that of the vectors where their values have the covariance that they have for independent
    patterns (Diedrichsen et al. 2021): -1/2 of the matrix, centered over rows and columns, as far as it is there."""
    is_there = np.ones(vectors.shape[1], bool) if kept is None else kept
    number = round((1 + np.sqrt(1 + 8 * len(is_there))) / 2)
    first, second = (places[is_there] for places in np.triu_indices(number, 1))
    mask = np.eye(number)
    mask[first, second] = mask[second, first] = 1
    to_effects = np.linalg.pinv(np.diag(mask.sum(1)) + mask, hermitian=True)
    found = np.empty((len(vectors), len(first) + number))
    for row, vector in zip(found, vectors, strict=True):
        matrix = np.zeros((number, number))
        matrix[first, second] = matrix[second, first] = -0.5 * vector
        effects = to_effects @ matrix.sum(1)
        matrix -= effects[:, None] + effects
        row[: len(first)] = np.sqrt(2) * matrix[first, second]
        row[len(first) :] = np.diag(matrix)
    return found


def pooled(vectors: Floats, kind: Similarity) -> Floats:
    """The vector (pairs,) that is most similar to some (s, pairs) on average: for Kendall's, whose is not known, that
    of Spearman's, as Nili et al. (2014) have it."""
    match kind:
        case Similarity.SPEARMAN | Similarity.KENDALL_TAU_A:
            found = _ranks(vectors)
        case Similarity.PEARSON:
            centered = _centered(vectors)
            found = centered / _lengths(centered)
        case Similarity.COSINE:
            found = vectors / _lengths(vectors)
        case Similarity.WHITENED_COSINE:
            found = vectors / _lengths(_whitened(vectors, None))
        case _:
            assert_never(kind)
    mean: Floats = found.mean(0)
    return mean


def noise_ceiling(vectors: Floats, kind: Similarity) -> tuple[float, float]:
    """How similar a model could be to the matrices of s >= 2 subjects (s, pairs), on average: at least as the mean of
    the other subjects is to each, at most as that of all of them is (Nili et al. 2014)."""
    lower = [
        similarities(pooled(np.delete(vectors, place, 0), kind)[None], vectors[place][None], kind)[0, 0]
        for place in range(len(vectors))
    ]
    upper = similarities(pooled(vectors, kind)[None], vectors, kind)
    return float(np.mean(lower)), float(np.mean(upper))
