"""A figure, and tables of figures in long form."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accel_trainer.measures.trials import Cell


@dataclass(frozen=True)
class Figure:
    """One number.

    cell: what it is of. metric: its name, as docs/measures.md defines it. low, high: an interval, NaN where there is
    none.
    n: of how many trials, images, pairs or conditions, as the metric says; None where it is not known.
    other: whom an observer is compared with.
    """

    cell: Cell
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    other: Cell | None = None

    def as_record(self, conditions: Sequence[str]) -> dict[str, Any]:
        """A row of the long form; NaN is None."""
        levels = self.cell.levels
        return {
            "observer": self.cell.observer,
            "other": "" if self.other is None else _who(self.other),
            **{name: levels.get(name, "") for name in conditions},
            "layer": self.cell.layer,
            "cycle": self.cell.cycle,
            "metric": self.metric,
            "value": _number(self.value),
            "low": _number(self.low),
            "high": _number(self.high),
            "n": self.n,
        }


def records(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Rows of the long form, all with the same keys: observer, other, each condition, layer, cycle, metric, value, low,
    high, n."""
    figures = list(figures)
    conditions = list(dict.fromkeys(name for figure in figures for name, _ in figure.cell.conditions))
    return [figure.as_record(conditions) for figure in figures]


def as_csv(figures: Iterable[Figure]) -> str:
    """The long form as CSV, with all digits; what there is not is empty."""
    return csv_of(records(figures))


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """As `as_csv`, of `records`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["metric", "value"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _who(cell: Cell) -> str:
    words = [cell.observer, cell.layer, "" if cell.cycle is None else f"cycle {cell.cycle}"]
    return " ".join(word for word in words if word)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
