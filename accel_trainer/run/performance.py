"""performance.csv: one row for each epoch and split, written and read here."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from typing import Any, Self

from accel_trainer.core.blocks import open_text, read_block
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE
from accel_trainer.core.outage import persistently
from accel_trainer.core.text import one_line
from accel_trainer.run.folder import RunFolder

# Of 100,000 epochs.
MAX_PERFORMANCE = 256 * MEBIBYTE
# No number of 32 bits is larger.
MAX_NUMBER = 1e39
# What every row has; the scores stand in between.
FIRST_COLUMNS, LAST_COLUMNS = ("epoch", "split", "loss"), ("lr", "images_per_s", "seconds")
_EPOCH, _NUMBER = re.compile(r"[0-9]{1,15}").fullmatch, re.compile(r"[-+.0-9eE]{1,40}").fullmatch
_NUMBERS = re.compile(r"[-+.0-9eE]{1,40}(?:,[-+.0-9eE]{1,40})*").fullmatch


@dataclass(frozen=True)
class PerformanceRow:
    """What was measured in one pass over a split, after or during an epoch.

    epoch: counts from 1; epoch 0 is the initialization.
    split: "train", "val", or a further one such as "val_ema".
    scores: by name, `loss` among them; accuracies in percent.
    lr: the learning rate of the epoch. images_per_s, seconds: of this split's pass.
    """

    epoch: int
    split: str
    scores: Mapping[str, float]
    lr: float
    images_per_s: float
    seconds: float

    @classmethod
    def measured(
        cls, epoch: int, split: str, scores: Mapping[str, float], lr: float, num_images: int, seconds: float
    ) -> Self:
        """The row of a pass over `num_images`, which took `seconds`."""
        return cls(epoch, split, scores, lr, num_images / max(seconds, 1e-9), seconds)

    def as_record(self) -> dict[str, Any]:
        """Flat, as the columns of the table and the history of a saved state have it."""
        about = {"lr": self.lr, "images_per_s": self.images_per_s, "seconds": self.seconds}
        return {"epoch": self.epoch, "split": self.split, **self.scores, **about}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The row of which this is `as_record`. Raises KeyError."""
        about = {key: record[key] for key in LAST_COLUMNS}
        return cls(record["epoch"], record["split"], _scores_of(record), **about)


class _Table:
    """The columns of performance.csv, and its lines to rows."""

    def __init__(self, header: Sequence[str]) -> None:
        """Raises KeyError for one without a column that every row has."""
        places = {name: place for place, name in enumerate(header)}
        self.width = len(header)
        self.epoch, self.split, self.loss = (places[name] for name in FIRST_COLUMNS)
        self.about = [places[name] for name in LAST_COLUMNS]
        self.scores = [(n, place) for n, place in places.items() if n not in FIRST_COLUMNS + LAST_COLUMNS]

    def rows(self, lines: Sequence[Sequence[str]]) -> list[PerformanceRow]:
        """Those of the lines, column by column, which is faster. A score that was not measured is left out.

        Raises ValueError.
        """
        for line in lines:
            if len(line) != self.width:
                raise ValueError(f"{len(line)} of {self.width} columns")
        columns = list(zip(*lines, strict=True))
        for text in columns[self.epoch]:
            if not _EPOCH(text):
                raise ValueError(f"{text!r} is no epoch")
        split_names = {text: one_line(text) for text in set(columns[self.split])}
        splits = [split_names[text] for text in columns[self.split]]
        about = [_numbers(columns[place], is_finite=True) for place in self.about]
        names = ("loss", *(name for name, _ in self.scores))
        places = (self.loss, *(place for _, place in self.scores))
        measured = zip(*(_scores_in(columns[place], may_miss=place != self.loss) for place in places), strict=True)
        scores = [{n: one for n, one in zip(names, found, strict=True) if one is not None} for found in measured]
        return list(starmap(PerformanceRow, zip(map(int, columns[self.epoch]), splits, scores, *about, strict=True)))


def _scores_in(column: Sequence[str], *, may_miss: bool) -> list[float | None]:
    if not may_miss or "" not in column:
        return [*_numbers(column)]
    return [_number(text) if text else None for text in column]


def _numbers(column: Sequence[str], *, is_finite: bool = False) -> list[float]:
    """As `_number` of each."""
    if _NUMBERS(",".join(column)) and max(map(abs, numbers := list(map(float, column)))) <= MAX_NUMBER:
        return numbers
    return [_number(text, is_finite=is_finite) for text in column]


def _number(text: str, *, is_finite: bool = False) -> float:
    """A number as `write_performance` writes it. A score may be none that is finite, as of an average that diverges."""
    if text in ("nan", "inf", "-inf") and not is_finite:
        return float(text)
    number = float(text) if _NUMBER(text) else math.inf
    if abs(number) > MAX_NUMBER:
        raise ValueError(f"{text[:40]!r} is no number that it may be")
    return number


def _scores_of(record: Mapping[str, Any]) -> dict[str, float]:
    """What was measured of the model: the loss and its scores, accuracies in percent."""
    return {name: value for name, value in record.items() if name == "loss" or name not in FIRST_COLUMNS + LAST_COLUMNS}


def first_scores(scores: Mapping[str, float]) -> dict[str, Any]:
    """The loss and the first accuracy, as the status has them."""
    loss, first, *_ = scores.items()
    return {"loss": loss[1], "score_name": first[0], "score": first[1]}


def write_performance(run: RunFolder, history: Iterable[PerformanceRow]) -> None:
    """Write performance.csv, whole: an epoch that is replayed after a crash has its row once.

    A score that was not measured for a row is left empty. Raises OSError.
    """
    records = [row.as_record() for row in history]
    scores = dict.fromkeys(name for record in records for name in _scores_of(record) if name not in FIRST_COLUMNS)
    columns = (*FIRST_COLUMNS, *scores, *LAST_COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _rounded(record.get(key)) for key in columns} for record in records)
    run.write(run.performance, text.getvalue())


def _rounded(value: Any) -> Any:
    return float(f"{value:.8g}") if isinstance(value, float) else value


def read_performance(run: RunFolder) -> list[PerformanceRow]:
    """The rows of performance.csv, none when there is no such file yet. Raises UserError if it is not readable."""
    try:
        with open_text(run.performance, MAX_PERFORMANCE) as file:
            lines = filter(None, csv.reader(file))
            header, first = next(lines, None), next(lines, None)
            if header is None or first is None:
                return []
            return _Table(header).rows([first, *lines])
    except FileNotFoundError:
        return []
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"cannot be read: {error!r}", where=run.performance) from error


def has_results(run: RunFolder) -> bool:
    """Whether performance.csv has a row, readable or not."""
    try:
        read = partial(read_block, run.performance, 0)
        return len(persistently(read, lambda: str(run.performance), may_be_missing=True).splitlines()) > 1
    except OSError:
        return False
