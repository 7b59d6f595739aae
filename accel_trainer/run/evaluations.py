"""What was measured of a run after its training: a folder each below `evaluations/`, and what it says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import write_atomic
from accel_trainer.core.record_store import Count, Line, RecordStore
from accel_trainer.run.folder import RunFolder


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
        """Accuracy over levels, as png or pdf."""
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
