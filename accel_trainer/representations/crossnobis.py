"""Dissimilarities that are not biased by noise: crossvalidated Mahalanobis distances between repeats."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.representations.conditions import Conditions
from accel_trainer.representations.dissimilarity import Distance, dissimilarities
from accel_trainer.representations.rows import Floats, Means, Rows, Sums, pieces

# Of the covariance of noise, values x values in float64, 200 MB.
MOST_VALUES = 5000


@dataclass(frozen=True)
class Whitened:
    """Rows in whose units noise has the covariance 1. factor: lower triangular, whose square is the covariance."""

    rows: Rows
    factor: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, values)."""
        return self.rows.shape

    def __getitem__(self, rows: slice) -> Floats:
        """Those rows."""
        from scipy.linalg import solve_triangular

        found: Floats = solve_triangular(self.factor, np.asarray(self.rows[rows], np.float64).T, lower=True).T
        return found


def crossnobis(rows: Rows, conditions: Conditions, covariance: Floats | None = None) -> Floats:
    """Of each pair of conditions the squared Mahalanobis distance, divided by the number of values: the mean over all
    pairs of different partitions of the product of their differences (Walther et al. 2016). It is 0 in expectation
    where conditions do not differ, and may be negative.

    rows: (images, values); covariance: that of noise, (values, values); None: the identity. In the order of `pdist`.
    Raises UserError for fewer than two partitions.
    """
    num = len(conditions.partitions)
    if num < 2:
        raise UserError(
            "crossnobis needs two partitions at least: repeats of every condition",
            hint="images of a class, by `--by class`, or a table with the columns image, condition, partition",
        )
    parts: Sequence[Rows] = [Means(rows, members) for members in conditions.partitions]
    if covariance is not None:
        factor = _square_root(covariance)
        parts = [Whitened(part, factor) for part in parts]
    squared = dissimilarities(Sums(parts), Distance.SQUARED_EUCLIDEAN)
    for part in parts:
        squared -= dissimilarities(part, Distance.SQUARED_EUCLIDEAN)
    return squared / (num * (num - 1) * rows.shape[1])


def _square_root(covariance: Floats) -> Floats:
    """Lower triangular."""
    try:
        return np.linalg.cholesky(covariance).astype(np.float64)
    except np.linalg.LinAlgError as error:
        raise UserError(
            "the covariance of noise has no inverse: images of a condition do not differ in some values", option="noise"
        ) from error


def noise_covariance(rows: Rows, conditions: Conditions) -> Floats:
    """The covariance of images of a condition about its mean, (values, values), shrunk towards a multiple of the
    identity by the amount of Ledoit and Wolf (2004), and corrected for the means: n images of c conditions have n - c
    degrees of freedom. Raises UserError for more than 5,000 values, and where no condition has two images."""
    values = rows.shape[1]
    if values > MOST_VALUES:
        raise UserError(
            f"the covariance of {values:,} values has {values**2:,} numbers; {MOST_VALUES:,} values are the most",
            option="noise",
            hint="take features of fewer values, as `features --pool mean` gives them",
        )
    num = sum(map(len, conditions.members))
    if num <= len(conditions.members):
        raise UserError("no condition has two images, between which noise could be seen", option="noise")
    total, fourth = np.zeros((values, values)), 0.0
    for members in conditions.members:
        mean = Means(rows, [members])[0:1][0]
        for piece in pieces(rows, members):
            residuals = np.asarray(piece, np.float64) - mean
            total += residuals.T @ residuals
            fourth += float(np.square(np.square(residuals).sum(1)).sum())
    return _shrunk(total / num, fourth / num, num) * (num / (num - len(conditions.members)))


def _shrunk(covariance: Floats, fourth: float, num: int) -> Floats:
    """fourth: the mean of |residual|⁴."""
    values = len(covariance)
    size = float(np.square(covariance).sum())
    mean = np.trace(covariance) / values
    distance = size - values * mean**2
    if distance <= 0:
        return covariance
    weight = min(distance, (fourth - size) / num) / distance
    shrunk: Floats = (1 - weight) * covariance
    shrunk[np.diag_indices(values)] += weight * mean
    return shrunk
