"""What trackers have of a run, also from attempts before: each row is told once."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.training import wandb_run
from accel_trainer.training.tensorboard_log import logged_values
from accel_trainer.training.wandb_log import EPOCH, STEP, Row, logged_rows

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

WANDB, TENSORBOARD = "wandb", "tensorboard"


class TrackedRows:
    """Rows by what they are of and their number. wandb has whole rows, the others single values."""

    def __init__(self) -> None:
        self._rows = set[Row]()
        self._up_to: dict[str, int] = {}
        self._values: dict[GeneralTracker, set[tuple[str, int]]] = {}
        self._defined = set[str]()

    @property
    def is_empty(self) -> bool:
        """Whether wandb has nothing as yet."""
        return not self._rows and not self._up_to

    def read_wandb(self, folder: Path, id_: str) -> None:
        """Take up what is in the files of a run below wandb's folder."""
        self._rows |= logged_rows(folder, id_)

    def read_tensorboard(self, tracker: "GeneralTracker") -> None:
        """Take up what is in the files of TensorBoard's tracker."""
        self._values[tracker] = logged_values(Path(tracker.logging_dir))

    def ask_server(self, tracker: "GeneralTracker") -> None:
        """Of a run that goes on online wandb's server knows how far it is."""
        for axis in (EPOCH, STEP):
            if isinstance(last := tracker.tracker.summary.get(axis), int):
                self._up_to[axis] = last

    def log_to_wandb(
        self,
        tracker: "GeneralTracker",
        row: Row,
        values: Mapping[str, Any],
        media: Mapping[str, Any],
        series: Iterable[str],
    ) -> None:
        """A row of wandb's history, unless it is there. series: the names of values that are defined first."""
        kind, number = row
        if row in self._rows or number <= self._up_to.get(kind.axis, -1):
            return
        wandb_run.define_series(tracker.tracker, [name for name in series if name not in self._defined], kind)
        self._defined.update(series)
        tracker.log({**values, **media, kind.axis: number})
        self._rows.add(row)

    def log_to(self, tracker: "GeneralTracker", row: Row, values: Mapping[str, Any]) -> None:
        """The values of a row that another tracker has not."""
        known, (_, number) = self._values.setdefault(tracker, set()), row
        if new := {name: value for name, value in values.items() if (name, number) not in known}:
            tracker.log(new, step=number)
            known.update((name, number) for name in new)
