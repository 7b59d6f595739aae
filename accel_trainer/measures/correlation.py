"""How alike the profiles of two observers over conditions are, and how alike they could be."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Cell, Trials

Levels = tuple[tuple[str, str], ...]
Profile = Mapping[Levels, float]

FEWEST_CONDITIONS = 3


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Pearson's r of two (n,) series; NaN where one of them is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(np.asarray(first, float), np.asarray(second, float))[0, 1])


def profiles(trials: Trials, by: Sequence[str] | None = None) -> dict[Cell, Profile]:
    """Of each observer the accuracy (0..1) under each combination of the conditions `by` (None: all)."""
    found = defaultdict[Cell, dict[Levels, float]](dict)
    for figure in accuracy(trials, by):
        found[figure.cell.who][figure.cell.conditions] = figure.value
    return dict(found)


def noise_ceiling(trials: Trials, by: Sequence[str] | None = None) -> list[Figure]:
    """How well a person's profile can be predicted, in Pearson's r: `noise_ceiling_lower` from that of the others,
    `noise_ceiling_upper` from that of everybody, the person included.

    The profile of several people is the accuracy over all their trials, so one who has more trials counts more. n: the
    conditions. Raises UserError for fewer than two people or three conditions, or conditions that one has not seen.
    """
    own = profiles(trials, by)
    if len(own) < 2:
        raise UserError("a noise ceiling needs two observers at least")
    everybody = _only(profiles(trials.pooled(), by), "people")
    figures = list[Figure]()
    for who, profile in own.items():
        others = trials.select(~trials.observer.is_in([who.observer]))
        of_others = _only(profiles(others.pooled(), by), "people")
        for name, group in (("noise_ceiling_lower", of_others), ("noise_ceiling_upper", everybody)):
            figures.append(_correlation(who, name, profile, group, None))
    return figures


def _only(found: dict[Cell, Profile], what: str) -> Profile:
    """Raises UserError where layers or cycles are left."""
    if len(found) != 1:
        raise UserError(f"{what} have no layers or cycles: leave those of one")
    return next(iter(found.values()))


def condition_correlation(trials: Trials, others: Trials, by: Sequence[str] | None = None) -> list[Figure]:
    """`condition_correlation`: Pearson's r of the profile of each observer of `trials` with that of each of `others`
    (people). n: the conditions. Raises UserError for fewer than three conditions, or conditions of one table only."""
    by = list(trials.conditions) if by is None else list(by)
    of_others = profiles(others, by)
    return [
        _correlation(who, "condition_correlation", profile, other, other_who)
        for who, profile in profiles(trials, by).items()
        for other_who, other in of_others.items()
    ]


def _correlation(who: Cell, metric: str, first: Profile, second: Profile, other: Cell | None) -> Figure:
    if alone := first.keys() ^ second.keys():
        words = (" ".join(level for _, level in levels) for levels in sorted(alone))
        raise UserError(
            f"{who.observer} and those it is compared with have not the same conditions: {listed(words)}",
            hint="leave out those that only one has",
        )
    if len(first) < FEWEST_CONDITIONS:
        raise UserError(f"a correlation over {len(first)} conditions says nothing", hint="compare by more of them")
    value = pearson(list(first.values()), [second[levels] for levels in first])
    return Figure(who, metric, value, n=len(first), other=other)
