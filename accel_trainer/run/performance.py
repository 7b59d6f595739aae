"""performance.csv: one row for each epoch and split, written and read here."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import write_atomic
from accel_trainer.run.folder import RunFolder

# What every row of performance.csv has; scores stand in between.
FIRST_COLUMNS, LAST_COLUMNS = ("epoch", "split", "loss"), ("lr", "images_per_s", "seconds")


def performance_row(
    epoch: int, split: str, scores: Mapping[str, float], rate: float, num_images: int, seconds: float
) -> dict[str, Any]:
    """A row of performance.csv: what was measured over `num_images` in `seconds`."""
    speed = num_images / max(seconds, 1e-9)
    return {"epoch": epoch, "split": split, **scores, "lr": rate, "images_per_s": speed, "seconds": seconds}


def scores_of(row: Mapping[str, Any]) -> dict[str, float]:
    """What was measured of the model: the loss and its scores, accuracies in percent."""
    return {name: value for name, value in row.items() if name == "loss" or name not in FIRST_COLUMNS + LAST_COLUMNS}


def _first_scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """The loss and the first accuracy, as the status has them."""
    loss, *others = scores_of(row).items()
    name, value = others[0]
    return {"loss": loss[1], "score_name": name, "score": value}


def write_performance(run: RunFolder, history: Sequence[Mapping[str, Any]]) -> None:
    """performance.csv, whole: an epoch that is replayed after a crash has its row once.

    A score that was not measured for a row is left empty.
    """
    scores = dict.fromkeys(name for row in history for name in scores_of(row) if name not in FIRST_COLUMNS)
    columns = (*FIRST_COLUMNS, *scores, *LAST_COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _rounded(row.get(key)) for key in columns} for row in history)
    write_atomic(run.performance, text.getvalue())


def _rounded(value: Any) -> Any:
    return float(f"{value:.8g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class PerformanceRow:
    """One line of performance.csv; `lr` and images_per_s of that split's pass.

    scores: what was measured, `loss` among it, and accuracies in percent.
    """

    epoch: int
    split: str
    scores: Mapping[str, float]
    lr: float
    images_per_s: float
    seconds: float


def read_performance(run: RunFolder) -> list[PerformanceRow]:
    """The rows of performance.csv, none when there is no such file yet. Raises UserError if it is not readable."""
    try:
        return [_row(line) for line in csv.DictReader(io.StringIO(run.read_performance(), newline=""))]
    except FileNotFoundError:
        return []
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{run.performance}: cannot be read: {error!r}") from error


def _row(line: Mapping[str, str]) -> PerformanceRow:
    about = {key: float(line[key]) for key in ("lr", "images_per_s", "seconds")}
    others = {key: value for key, value in line.items() if key not in ("epoch", "split", *about)}
    scores = {"loss": float(line["loss"]), **{key: float(value) for key, value in others.items() if value}}
    return PerformanceRow(epoch=int(line["epoch"]), split=line["split"], scores=scores, **about)
