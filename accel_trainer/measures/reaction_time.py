"""The reaction time of a recurrent model: the cycle at which it is sure (Spoerer et al., 2020)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.measures.accuracy import share
from accel_trainer.measures.factor import groups
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Blocks, Trials, blocks_of


def entropies(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Shannon's entropy of each row of (n, classes) probabilities, in nats: 0..log(classes). 0 log 0 is 0."""
    values = np.asarray(probabilities, np.float64)
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    # Not -0.
    return np.asarray(0.0 - (values * logs).sum(1))


def entropy_of(trials: Trials) -> NDArray[np.float64]:
    """(n,) float64, in nats: the column `entropy`, or of all probabilities. Raises UserError where there is neither."""
    if trials.entropy is not None:
        return trials.entropy.astype(np.float64)
    if trials.probabilities is None or trials.top_classes is not None:
        raise UserError("reaction times need the probabilities of all classes, or a column `entropy`")
    return entropies(trials.probabilities)


def reaction_times(trials: Blocks, threshold: float) -> tuple[Trials, NDArray[np.bool_]]:
    """For each image, observer and combination of conditions the row of the first cycle whose entropy (nats) is below
    the threshold, or of the last cycle where it never is: (those rows, whether it was below).

    The table's `cycle` is the reaction time, its responses are those at that moment. Trials are read block by block, of
    which only the entropies stay. Raises UserError where there are no cycles, or no entropies.
    """
    parts = [replace(block, entropy=entropy_of(block).astype(np.float32)) for block in blocks_of(trials)]
    table = Trials.joined(part.without_probabilities() for part in parts)
    if table.cycle is None or table.entropy is None:
        raise UserError("reaction times are of models that answer in several cycles, and these trials have none")
    columns = [table.observer, table.image, *table.conditions.values()]
    group, found = groups([*columns, *([] if table.layer is None else [table.layer])], len(table))
    order = np.lexsort((table.cycle, group))
    is_below = table.entropy[order] < threshold
    first_row = np.searchsorted(group[order], np.arange(len(found)))
    last_row = np.append(first_row[1:], len(table)) - 1
    if (np.diff(table.cycle[order])[np.diff(group[order]) == 0] == 0).any():
        raise UserError("an image has two trials of the same cycle under the same conditions")
    never = len(table)
    candidates = np.where(is_below, np.arange(never), never)
    first_below = np.minimum.reduceat(candidates, first_row) if never else candidates
    reached = first_below < never
    return table.select(order[np.where(reached, first_below, last_row)]), reached


def reaction_time_figures(trials: Blocks, threshold: float, by: Sequence[str] | None = None) -> list[Figure]:
    """`reaction_time`: the mean cycle, numbered as in the table, at which the entropy falls below the threshold (nats);
    images at which it never does count with their last cycle. `reached` (0..1): the share at which it does.
    `accuracy_at_reaction_time` (0..1)."""
    times, reached = reaction_times(trials, threshold)
    figures = list[Figure]()
    if times.cycle is None:
        return figures
    for cell, rows in replace(times, cycle=None).cells(by):
        n = len(rows)
        figures.append(Figure(cell, "reaction_time", float(times.cycle[rows].mean()), n=n))
        figures.append(share(cell, "reached", int(reached[rows].sum()), n))
        figures.append(share(cell, "accuracy_at_reaction_time", int(times.correct[rows].sum()), n))
    return figures
