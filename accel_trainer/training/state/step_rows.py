"""What is measured of a training by steps, and not by epochs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What of it goes with a state, for trackers that have lost what they were told last.
KEPT_ROWS = 1000


@dataclass(frozen=True)
class StepRow:
    """Training images since the row before. step: the last one, over all epochs; scores: as in performance.csv; lr: of
    that step."""

    step: int
    scores: dict[str, float]
    lr: float


@dataclass(frozen=True)
class StepHistory:
    """rows: the newest ones; sums: of the steps since the last of them, over all processes, as `Objective.scores` takes
    them."""

    rows: list[StepRow] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)

    def as_record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"rows": [vars(row) for row in self.rows], "sums": self.sums}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "StepHistory":
        """What `as_record` gave. Raises KeyError and TypeError for anything else."""
        return cls([StepRow(**row) for row in record["rows"]], [float(value) for value in record["sums"]])
