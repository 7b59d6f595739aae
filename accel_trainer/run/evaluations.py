"""What was measured of a run after its training: a folder each below `evaluations/`, and what it says of itself."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accel_trainer.core.blocks import open_text
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, write_atomic
from accel_trainer.core.record_store import Count, Line, RecordStore
from accel_trainer.run.folder import RunFolder

MAX_SUMMARY = 256 * MEBIBYTE


@dataclass(frozen=True)
class EvaluationFolder:
    """Every path in the folder of an evaluation. A `RunFolder` of the same path has its lock."""

    path: Path

    @property
    def record(self) -> Path:
        """What was evaluated, how, and whether all of it is there."""
        return self.path / "evaluation.json"

    @property
    def trials(self) -> Path:
        """The table of trials."""
        return self.path / "trials.parquet"

    @property
    def summary(self) -> Path:
        """Figures of each condition, in long form."""
        return self.path / "summary.csv"

    def curves(self, suffix: str) -> Path:
        """Accuracy over levels, as png, pdf or svg."""
        return self.path / f"curves.{suffix}"

    @property
    def unfinished(self) -> Path:
        """The folder of answers, until the table is there."""
        return self.path / "unfinished"


@dataclass(frozen=True)
class EvaluationRecord:
    """evaluation.json.

    plan: as `config.evaluation.EvaluationPlan` has it. measured: what decides the numbers; a folder with something
    else is another evaluation's. observer: the model's name in the table. images: how many there are, corrupt ones
    included. degraded_sha256: a digest of the pixels of all images under all conditions, and `conditions` that of each.
    notes: what is to be said of the figures, as of a fit that has not converged.
    """

    plan: dict[str, Any]
    measured: dict[str, Any]
    observer: Line
    architecture: Line
    dataset: Line
    epoch: int | None
    images: Count
    versions: dict[str, str]
    complete: bool = False
    corrupt: list[str] = field(default_factory=list)
    degraded_sha256: Line = ""
    conditions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


_RECORDS = RecordStore(EvaluationRecord)


def read_evaluation(folder: EvaluationFolder) -> EvaluationRecord | None:
    """evaluation.json; None where there is none. Raises UserError for one that cannot be read."""
    if _RECORDS.is_damaged(folder.record):
        raise UserError("cannot be read: it is damaged", where=folder.record, hint="remove the folder to measure anew")
    return _RECORDS.read(folder.record)


def write_evaluation(folder: EvaluationFolder, record: EvaluationRecord, owned: RunFolder) -> None:
    """Write evaluation.json, as the folder's owner. Raises OSError and LockLost."""
    write_atomic(folder.record, _RECORDS.encode(record), check=owned.check_owner, aside_in=owned.aside)


def evaluations_of(run: RunFolder) -> Mapping[str, EvaluationFolder]:
    """The evaluations of a run by their names, complete or not, in the order of these."""
    if not run.evaluations.is_dir():
        return {}
    found = (EvaluationFolder(path) for path in sorted(run.evaluations.iterdir()))
    return {folder.path.name: folder for folder in found if folder.record.is_file()}


@dataclass(frozen=True)
class ConditionAccuracy:
    """How well a model did under one condition, in its last cycle: shares of 1, with a 95% interval, of so many images.
    level: as its degradation writes it."""

    degradation: str
    level: str
    accuracy: float
    low: float
    high: float
    images: int


def read_accuracies(folder: EvaluationFolder) -> list[ConditionAccuracy]:
    """Those of a complete evaluation, of its degradations; none where there are none, or nothing can be read."""
    found: dict[tuple[str, str], tuple[int, ConditionAccuracy]] = {}
    with suppress(OSError, ValueError, KeyError), open_text(folder.summary, MAX_SUMMARY) as file:
        for row in csv.DictReader(file):
            if row["metric"] != "accuracy" or not row.get("degradation"):
                continue
            cycle, key = int(row["cycle"] or 0), (row["degradation"], row["level"])
            value, low, high = (float(row[name]) for name in ("value", "low", "high"))
            if key not in found or found[key][0] < cycle:
                found[key] = cycle, ConditionAccuracy(*key, value, low, high, int(row["n"]))
    return [accuracy for _, accuracy in found.values()]


def mean_accuracies(accuracies: Sequence[ConditionAccuracy]) -> dict[str, float]:
    """The mean over all measured levels of each degradation, in percent."""
    levels = _by_degradation(accuracies).items()
    return {name: 100 * sum(one.accuracy for one in of_it) / len(of_it) for name, of_it in levels}


def best_accuracies(run: RunFolder, best_epoch: int | None) -> dict[str, list[ConditionAccuracy]]:
    """Those of the best weights of a run on its own images by degradation, at its levels in their order, of all
    evaluations that are complete; of one degradation that several have, of the one with most levels. best_epoch:
    evaluations of weights that were the best before are left out."""
    found: dict[str, list[ConditionAccuracy]] = {}
    for folder, record in best_evaluations(run, best_epoch):
        conditions = record.measured.get("conditions")
        names = conditions if isinstance(conditions, list) else []
        order = {name: place for place, name in enumerate(names) if isinstance(name, str)}
        for name, levels in _by_degradation(read_accuracies(folder)).items():
            if len(levels) > len(found.get(name, ())):
                found[name] = sorted(levels, key=lambda one: order.get(f"{one.degradation}/{one.level}", len(order)))
    return dict(sorted(found.items()))


def best_evaluations(run: RunFolder, best_epoch: int | None) -> Iterator[tuple[EvaluationFolder, EvaluationRecord]]:
    """The complete ones of the best weights of a run on its own images."""
    for folder in evaluations_of(run).values():
        record = None
        with suppress(UserError):
            record = read_evaluation(folder)
        if record is None or not record.complete or not _is_of_best(record.plan):
            continue
        if record.epoch in (None, best_epoch):
            yield folder, record


def degraded_accuracies(run: RunFolder, best_epoch: int | None) -> dict[str, float]:
    """`mean_accuracies` of `best_accuracies`."""
    return mean_accuracies([one for levels in best_accuracies(run, best_epoch).values() for one in levels])


def _is_of_best(plan: Mapping[str, Any]) -> bool:
    return plan.get("weights") == "best" and plan.get("dataset") is None and plan.get("degraded_set") is None


def _by_degradation(accuracies: Sequence[ConditionAccuracy]) -> dict[str, list[ConditionAccuracy]]:
    found: dict[str, list[ConditionAccuracy]] = {}
    for one in accuracies:
        found.setdefault(one.degradation, []).append(one)
    return found
