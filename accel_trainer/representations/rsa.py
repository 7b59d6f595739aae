"""Representational similarity analysis: matrices of models beside those of brains and people, as figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Cell
from accel_trainer.representations.rdm_files import RDMS, SUFFIXES, Rdms, pair_index, read_rdms
from accel_trainer.representations.rows import Floats
from accel_trainer.representations.similarity import Mask, Similarity, noise_ceiling, similarities

CONFIDENCE = 0.95
SAMPLES = 1000
FEWEST_CONDITIONS = 3


@dataclass(frozen=True)
class RsaSettings:
    """similarities: which; samples: of the bootstrap over conditions, 0 for no intervals; seed: of these samples."""

    similarities: Sequence[Similarity] = (Similarity.SPEARMAN,)
    samples: int = SAMPLES
    seed: int = 0


def rsa(models: Sequence[Path], against: Sequence[Path], settings: RsaSettings | None = None) -> list[Figure]:
    """Of the matrices in files, as `read_rdms` reads them: figures of each model, and the noise ceiling. against: those
    of the subjects of one group; a folder has one or more of them. Raises UserError, OSError."""
    wanted = settings or RsaSettings()
    group, subjects = _group_of(against)
    figures = list[Figure]()
    for name, path in zip(_names(models), models, strict=True):
        try:
            model = read_rdms(path)
            figures += compare(name, model, group, subjects.in_order_of(model.conditions), wanted)
        except UserError as error:
            raise error if error.details[0].where else error.at(path) from error
    return figures + ceilings(group, subjects, wanted)


def _names(paths: Sequence[Path]) -> list[str]:
    """What models are called: as their files or folders, with the folders above as far as these are not all others."""
    parts = [(*path.resolve().parts[:-1], path.resolve().stem) for path in paths]
    for depth in range(1, max(map(len, parts))):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(part) for part in parts]


def _group_of(against: Sequence[Path]) -> tuple[str, Rdms]:
    """Its name, and the matrices of all its subjects, in one order of conditions."""
    paths = [path for given in against for path in _files_of(given)]
    found = [read_rdms(path) for path in paths]
    conditions = next((one.conditions for one in found if one.conditions), ())
    aligned = list[Floats]()
    for path, one in zip(paths, found, strict=True):
        if one.num_conditions != found[0].num_conditions:
            numbers = f"{one.num_conditions} conditions, and {paths[0]} {found[0].num_conditions}"
            raise UserError(f"has {numbers}", where=path)
        try:
            aligned.append(one.in_order_of(conditions).vectors)
        except UserError as error:
            raise error.at(path) from error
        if flat := np.flatnonzero(~(np.ptp(one.vectors, axis=1) > 0)).tolist():
            raise UserError(f"matrix {flat[0] + 1} has no variance, or a NaN: it is like no other", where=path)
    where = against[0].resolve()
    return (where if len(against) == 1 else where.parent).stem, Rdms(np.concatenate(aligned), conditions)


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir() or (path / RDMS).exists():
        return [path]
    if not (found := sorted(one for one in path.iterdir() if one.suffix in SUFFIXES)):
        raise UserError("has no files of matrices", where=path, hint=f"they end in {', '.join(SUFFIXES)}")
    return found


def compare(name: str, model: Rdms, group: str, subjects: Rdms, settings: RsaSettings) -> list[Figure]:
    """`rsa_<similarity>` of each matrix of a model: the mean over the subjects. low, high: percentiles of a bootstrap
    over conditions, which says what other conditions would give, and nothing of other subjects. n: the conditions.
    Raises UserError where these are not as many, or fewer than three."""
    number = model.num_conditions
    if number != subjects.num_conditions:
        raise UserError(f"{name} has {number} conditions, and {group} {subjects.num_conditions}")
    if number < FEWEST_CONDITIONS:
        raise UserError(f"similarity of matrices of {number} conditions says nothing")
    figures = list[Figure]()
    for kind in settings.similarities:
        values = similarities(model.vectors, subjects.vectors, kind).mean(1)
        low, high = _intervals(model.vectors, subjects.vectors, kind, number, settings)
        for place, value in enumerate(values.tolist()):
            layer = model.layers[place] if model.layers else ""
            cycle = model.cycles[place] if model.cycles else None
            cell, other = Cell(name, layer, cycle), Cell(group)
            figures.append(Figure(cell, _metric(kind), value, float(low[place]), float(high[place]), number, other))
    return figures


def ceilings(group: str, subjects: Rdms, settings: RsaSettings) -> list[Figure]:
    """`rsa_<similarity>_ceiling_lower` and `_upper` of two subjects or more; n: the subjects."""
    number = len(subjects.vectors)
    if number < 2:
        return []
    bounds = {kind: noise_ceiling(subjects.vectors, kind) for kind in settings.similarities}
    return [
        Figure(Cell(group), f"{_metric(kind)}_ceiling_{bound}", value, n=number)
        for kind, values in bounds.items()
        for bound, value in zip(("lower", "upper"), values, strict=True)
    ]


def _metric(kind: Similarity) -> str:
    return f"rsa_{kind.replace('-', '_')}"


def _intervals(
    models: Floats, subjects: Floats, kind: Similarity, number: int, settings: RsaSettings
) -> tuple[Floats, Floats]:
    """The ends of the intervals of each matrix of the model."""
    found = np.full((max(1, settings.samples), len(models)), np.nan)
    for row, (pairs, kept) in zip(found, _samples(number, settings), strict=False):
        row[:] = similarities(models[:, pairs], subjects[:, pairs], kind, kept).mean(1)
    tail = 100 * (1 - CONFIDENCE) / 2
    ends = np.full((2, len(models)), np.nan)
    for place, values in enumerate(found.T):
        if (known := values[~np.isnan(values)]).size:
            ends[:, place] = np.percentile(known, [tail, 100 - tail])
    return ends[0], ends[1]


def _samples(number: int, settings: RsaSettings) -> Iterator[tuple[Floats, Mask]]:
    """Conditions drawn with replacement: where the dissimilarities of all their pairs are, and which pairs these are; a
    condition that is drawn twice has no dissimilarity to itself."""
    rng = np.random.default_rng(settings.seed)
    first, second = np.triu_indices(number, 1)
    for _ in range(settings.samples):
        drawn = np.sort(rng.integers(number, size=number))
        kept = drawn[first] != drawn[second]
        if np.unique(drawn).size >= FEWEST_CONDITIONS:
            yield pair_index(drawn[first[kept]], drawn[second[kept]], number), kept
