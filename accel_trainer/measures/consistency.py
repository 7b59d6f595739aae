"""Error consistency: whether two observers fail on the same images (Geirhos, Meding and Wichmann, 2020)."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Cell, Trials, in_table_order

# trial, experiment, observer, condition, category and number, as the published names of stimuli have them.
_TRIAL_PREFIX = re.compile(r"[0-9]+(?:_[^_]*){5}_")

_ONE_BENCHMARK = "compare those of one benchmark"


def picture_of(name: str) -> str:
    """The picture that a published name of a stimulus ends with: what follows its sixth underscore, where it begins
    with the number of a trial. Folders are left out. Another name stays as it is."""
    last = name.rpartition("/")[2]
    return last[prefix.end() :] if (prefix := _TRIAL_PREFIX.match(last)) else name


def kappa(first: ArrayLike, second: ArrayLike) -> float:
    """Cohen's kappa of two observers who were right or wrong (n,) on the same n images: -1..1, 0 is chance.

    Observed is how often both were right or both wrong, expected what their accuracies p and q alone give, p q +
    (1 - p)(1 - q). Observers that agree on every image have 1, also where expected is 1. NaN for no images.
    """
    one, other = np.asarray(first, bool), np.asarray(second, bool)
    if len(one) == 0:
        return float("nan")
    p, q = one.mean(), other.mean()
    expected = p * q + (1 - p) * (1 - q)
    observed = (one == other).mean()
    return 1.0 if observed == 1 else float((observed - expected) / (1 - expected))


def error_consistency(trials: Trials, others: Trials | None = None, by: Sequence[str] | None = None) -> list[Figure]:
    """`error_consistency` of each pair of observers under each combination of the conditions `by` (None: all).

    Pairs are of the observers of `trials`, or with `others` one of each. n: the images. Images go by `picture_of` their
    names. Raises UserError where a pair has not seen the same images once each, or nobody shares a condition.
    """
    by = list(trials.conditions) if by is None else list(by)
    names = dict[str, int]()
    seen = _seen(trials, by, names)
    seen_by_others = seen if others is None else _seen(others, by, names)
    figures = list[Figure]()
    for levels, first in seen.items():
        second = seen_by_others.get(levels, {})
        pairs = itertools.combinations(first, 2) if others is None else itertools.product(first, second)
        for one, other in pairs:
            value, n = _kappa_of(first[one], second[other], f"{one.observer} and {other.observer}", levels)
            cell = replace(one, conditions=levels)
            figures.append(Figure(cell, "error_consistency", value, n=n, other=other))
    if not figures:
        raise UserError("no two observers have trials of the same condition", hint=_ONE_BENCHMARK)
    return figures


Levels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Answers:
    """Of one observer under one condition: images (n,) int64, none twice, in order; correct (n,) bool."""

    images: NDArray[np.int64]
    correct: NDArray[np.bool_]


def _seen(trials: Trials, by: Sequence[str], names: dict[str, int]) -> dict[Levels, dict[Cell, _Answers]]:
    """By condition and observer. names: the number of each picture; new ones are added."""
    numbers = [names.setdefault(picture_of(level), len(names)) for level in trials.image.levels]
    images = np.array(numbers, np.int64)[trials.image.codes]
    seen = dict[Levels, dict[Cell, _Answers]]()
    for cell, rows in trials.cells(by):
        of_cell = rows[np.argsort(images[rows], kind="stable")]
        if not np.diff(images[of_cell]).all():
            where = _words(cell.conditions)
            raise UserError(
                f"{cell.observer} has seen an image twice{where}", hint="compare by the conditions that tell them apart"
            )
        seen.setdefault(cell.conditions, {})[cell.who] = _Answers(images[of_cell], trials.correct[of_cell])
    return seen


def _kappa_of(first: _Answers, second: _Answers, who: str, levels: Levels) -> tuple[float, int]:
    if not np.array_equal(first.images, second.images):
        alone = len(np.setxor1d(first.images, second.images))
        raise UserError(
            f"{who} have not seen the same images{_words(levels)}: {alone} were shown to one of them only",
            hint="error consistency compares answers to the same images",
        )
    return kappa(first.correct, second.correct), len(first.images)


def _words(levels: Levels) -> str:
    return f" ({', '.join(f'{name} {level}' for name, level in levels)})" if levels else ""


def mean_consistency(figures: Iterable[Figure], benchmark: str = "benchmark", *, of_each: bool = False) -> list[Figure]:
    """`mean_error_consistency`: the plain mean of `error_consistency` over pairs and conditions, of each benchmark, and
    with several benchmarks the mean of these means (benchmark "all"). n: how many values, or benchmarks.

    of_each: one for each first observer of the pairs, over those it is compared with; otherwise one over all pairs.
    Where both of a pair are models with cycles, or with layers, means are of the same cycle and layer of both. Raises
    UserError where nothing is left.
    """
    values = defaultdict[Cell, list[float]](list)
    for figure in figures:
        one, other = figure.cell, figure.other or figure.cell
        if not _are_alike(one.cycle, other.cycle) or not _are_alike(one.layer or None, other.layer or None):
            continue
        name = one.levels.get(benchmark)
        shared = Cell(layer=one.layer if other.layer else "", cycle=None if other.cycle is None else one.cycle)
        who = one.who if of_each else shared
        values[who if name is None else who.under(**{benchmark: name})].append(figure.value)
    if not values:
        raise UserError("no two observers have trials of the same condition", hint=_ONE_BENCHMARK)
    return _means(values, benchmark)


def _are_alike(one: object, other: object) -> bool:
    return one == other or one is None or other is None


def _means(values: dict[Cell, list[float]], benchmark: str) -> list[Figure]:
    means = {cell: float(np.mean(values[cell])) for cell in sorted(values, key=in_table_order)}
    found = [Figure(cell, "mean_error_consistency", mean, n=len(values[cell])) for cell, mean in means.items()]
    for who in dict.fromkeys(cell.who for cell in means):
        of_who = [mean for cell, mean in means.items() if cell.who == who]
        if len(of_who) > 1:
            cell = who.under(**{benchmark: "all"})
            found.append(Figure(cell, "mean_error_consistency", float(np.mean(of_who)), n=len(of_who)))
    return found
