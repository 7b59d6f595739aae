"""What a model is trained for, and how well it does."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch

from accel_trainer.config import Job
from accel_trainer.data.loader import Batch
from accel_trainer.training.classification import ClassificationObjective
from accel_trainer.training.contrastive_objective import ContrastiveObjective
from accel_trainer.training.metrics import Judged
from accel_trainer.training.outputs import Cycles


class Objective(Protocol):
    """Gives the same loss, gradient and scores whatever the number of processes that share a batch."""

    score_names: tuple[str, ...]
    """Beside the loss, in percent; the first is what people look at while a model trains."""
    num_sums: int

    def to(self, device: torch.device) -> Self: ...

    def judge(self, output: Any, batch: Batch, *, is_shared: bool) -> Judged:
        """is_shared: other processes hold the other parts of this batch, as in training; each calls this."""
        ...

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """`loss`, and what `score_names` names; NaN where nothing was seen."""
        ...


def make_objective(job: Job, num_classes: int, num_cycles: int) -> Objective:
    """A job's objective for a model with so many cycles. Raises UserError."""
    cycles = Cycles.choose(num_cycles, job.loss_cycle)
    if job.is_contrastive:
        return ContrastiveObjective(job.criterion, job.criterion_args, job.num_views, cycles)
    return ClassificationObjective(job.criterion, job.criterion_args, num_classes, cycles)
