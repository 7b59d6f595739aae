"""Confusion matrices of runs, from the trials of their evaluations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import one_line
from accel_trainer.measures.accuracy import Confusion, confusion
from accel_trainer.measures.trials_file import open_parquet, trial_blocks
from accel_trainer.run.evaluations import best_evaluations
from accel_trainer.run.folder import RunFolder

DEGRADATION = "degradation"
# A matrix of more classes cannot be read: it has its most frequent confusions instead.
MOST_CLASSES, MOST_PAIRS = 40, 25
# Of a table that is read for the page, and of all matrices together.
MOST_TRIALS, MOST_CELLS = 3_000_000, 150_000
_REMEMBERED = 1024


@dataclass(frozen=True)
class PageConfusion:
    """Answers of a run in an evaluation, under a degradation at all its levels ("" where there is none), in the last
    cycle.

    counts: by true class and response, where there are few classes; pairs: else, the most frequent confusions as (true
    class, response, count, images of the class).
    """

    run: int
    evaluation: str
    degradation: str
    classes: list[str]
    responses: list[str]
    counts: list[list[int]]
    pairs: list[tuple[str, str, int, int]]

    @property
    def cells(self) -> int:
        """How many numbers it is."""
        return sum(map(len, self.counts)) + len(self.pairs)


def confusions_of(folders: Sequence[tuple[RunFolder, int | None]], notes: list[str]) -> list[PageConfusion]:
    """Those of all evaluations of the best weights, given runs with their best epochs. notes: gets a line for what is
    left out, and why."""
    found = list[PageConfusion]()
    room, left_out = MOST_CELLS, 0
    for run, (folder, best_epoch) in enumerate(folders):
        for evaluation, _ in best_evaluations(folder, best_epoch):
            for degradation, matrix in _read(evaluation.trials, notes):
                one = _of_page(run, evaluation.path.name, degradation, matrix)
                if one.cells > room:
                    left_out += 1
                    continue
                room -= one.cells
                found.append(one)
    if left_out:
        notes.append(f"{left_out} confusion matrices are left out, which would make the page large")
    return found


def _read(trials: Path, notes: list[str]) -> list[tuple[str, Confusion]]:
    try:
        about = trials.stat()
        return _matrices(trials, about.st_mtime_ns, about.st_size)
    except FileNotFoundError:
        return []
    except (UserError, OSError) as error:
        notes.append(f"no confusion matrix: {one_line(error)}")
        return []


@lru_cache(_REMEMBERED)
def _matrices(trials: Path, modified_ns: int, size: int) -> list[tuple[str, Confusion]]:
    """By degradation. A page that is written again reads no table again that is the same."""
    rows = open_parquet(trials).metadata.num_rows
    if rows > MOST_TRIALS:
        raise UserError(f"{trials} has {rows:,} trials", hint="`accel-train measure` gives it with --figure confusion")
    blocks = trial_blocks(trials, probabilities=False)
    first = next(blocks, None)
    if first is None:
        return []
    by = [DEGRADATION] if DEGRADATION in first.conditions else []
    found: dict[str, Confusion] = {}
    for one in confusion(trial_blocks(trials, probabilities=False), by):
        name = one.cell.levels.get(DEGRADATION, "")
        before = found.get(name)
        if before is None or (before.cell.cycle or 0) < (one.cell.cycle or 0):
            found[name] = one
    return list(found.items())


def _of_page(run: int, evaluation: str, degradation: str, matrix: Confusion) -> PageConfusion:
    is_small = len(matrix.responses) <= MOST_CLASSES
    return PageConfusion(
        run=run,
        evaluation=evaluation,
        degradation=degradation,
        classes=list(matrix.true_classes) if is_small else [],
        responses=list(matrix.responses) if is_small else [],
        counts=matrix.counts.tolist() if is_small else [],
        pairs=[] if is_small else list(_most_frequent(matrix)),
    )


def _most_frequent(matrix: Confusion) -> Iterator[tuple[str, str, int, int]]:
    """Answers that are not the true class, the most frequent first."""
    wrong = matrix.counts.copy()
    np.fill_diagonal(wrong, 0)
    n = matrix.counts.sum(1)
    for place in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS].tolist():
        row, column = divmod(place, len(matrix.responses))
        if wrong[row, column]:
            yield matrix.true_classes[row], matrix.responses[column], int(wrong[row, column]), int(n[row])
