"""Whether a model is right as often as it is sure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Blocks, Cell, blocks_of, in_table_order

BINS = 15


def calibration(trials: Blocks, by: Sequence[str] | None = None, bins: int = BINS) -> list[Figure]:
    """`expected_calibration_error` (0..1) of each cell, after Guo et al. (2017).

    Trials are put into `bins` bins of the same width, (0, 1/bins] first, by the largest probability; the figure is the
    mean over bins, weighted with their trials, of |accuracy - mean largest probability|. Raises UserError where there
    are no probabilities. Trials are read once, block by block.
    """
    sums = dict[Cell, NDArray[np.float64]]()
    for block in blocks_of(trials):
        if block.probabilities is None:
            raise UserError("calibration needs probabilities, and these trials have none")
        largest = block.probabilities.max(1)
        if not np.isfinite(largest).all():
            raise UserError("there are trials whose probabilities are no numbers")
        # In the precision of the probabilities: 0.6 is the end of a bin, whatever it is in other bits.
        place = np.clip(np.ceil(largest * largest.dtype.type(bins)).astype(np.int64) - 1, 0, bins - 1)
        confidence = largest.astype(np.float64)
        for cell, rows in block.cells(by):
            found = [
                np.bincount(place[rows], weights, bins)
                for weights in (None, confidence[rows], block.correct[rows].astype(np.float64))
            ]
            sums[cell] = sums.get(cell, np.zeros((3, bins))) + np.stack(found)
    return [_figure(cell, *sums[cell]) for cell in sorted(sums, key=in_table_order)]


def _figure(
    cell: Cell, n: NDArray[np.float64], confidence: NDArray[np.float64], correct: NDArray[np.float64]
) -> Figure:
    """Weighted by n, the difference of means of a bin is that of its sums."""
    value = float(np.abs(correct - confidence).sum() / n.sum())
    return Figure(cell, "expected_calibration_error", value, n=int(n.sum()))
