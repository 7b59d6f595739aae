"""Scores of a training by steps: means over the images since the row before, on all processes."""

from collections import deque
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor

from accel_trainer.training.objectives.base import Meter, Objective
from accel_trainer.training.state.step_rows import KEPT_ROWS, StepHistory, StepRow


class StepLog:
    """Adds up on the device, as the epoch's meter does; only for a row the host waits.

    every: steps from a row to the next; 0: there are none, and nothing is added up.
    """

    def __init__(self, every: int, accelerator: Accelerator, objective: Objective) -> None:
        self._every, self._accelerator, self._objective = every, accelerator, objective
        self._meter = Meter(accelerator.device, objective.num_sums) if every else None
        self._rows: deque[StepRow] = deque(maxlen=KEPT_ROWS)

    def add(self, sums: Tensor) -> None:
        """The sums of a batch, float (num_sums,) on the device."""
        if self._meter is not None:
            self._meter.add(sums)

    def after_step(self, step: int, lr: Callable[[], float]) -> StepRow | None:
        """The row of this step, over all epochs, where it has one. lr: gives the learning rate. All ranks call it."""
        if self._meter is None or step % self._every:
            return None
        row = StepRow(step, self._objective.scores(self._totals(self._meter)), lr())
        self._meter.reset()
        self._rows.append(row)
        return row

    def history(self) -> StepHistory | None:
        """What a state keeps; None where there are no rows. All ranks call it."""
        return None if self._meter is None else StepHistory(list(self._rows), self._totals(self._meter))

    def go_on_from(self, history: StepHistory | None) -> None:
        """Be where a state was saved, on however many processes."""
        if self._meter is None or history is None:
            return
        self._rows.extend(history.rows)
        if self._accelerator.is_main_process and len(history.sums) == len(self._meter.sums):
            self._meter.sums.copy_(torch.tensor(history.sums, dtype=self._meter.sums.dtype))

    def _totals(self, meter: Meter) -> list[float]:
        totals: list[float] = self._accelerator.reduce(meter.sums.clone(), reduction="sum").tolist()
        return totals
