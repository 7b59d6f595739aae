"""Degraded images in a training: measured after some epochs, and with the best weights in the end.

What is measured are saved weights, by a model of its own: nothing of the training takes part, so it comes to the same
bits without. Who measures is given by the caller, as it stands above a training.
"""

import csv
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from accelerate.utils import broadcast_object_list

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.text import listed
from accel_trainer.run.evaluations import (
    EvaluationFolder,
    mean_accuracies,
    read_accuracies,
    read_evaluation,
)
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.runtime.accelerator import Assembly
from accel_trainer.training.tracking import Tracking

log = logging.getLogger(__name__)
WHAT = "measuring degraded images"
BEST = "best"


class Measure(Protocol):
    """Measures what a plan says of a run into its folder, on all processes that train, which call it together. What an
    earlier attempt has left there is gone on with. Gives whether it is measured: not where somebody else does so just
    now. Raises UserError, and Stopped where any process is stopped."""

    def __call__(
        self,
        run: RunFolder,
        plan: EvaluationPlan,
        parts: Assembly,
        on_progress: Callable[[int, int], None],
        is_stopped: Callable[[], bool],
    ) -> bool:
        """on_progress: takes how many images are measured, and of how many."""
        ...


def plan_of(job: Job, weights: str = BEST) -> EvaluationPlan:
    """What is measured of a job's degradations."""
    occluders = job.degradation_occluders or (job.Occlusion.occluder_dir if job.Occlusion is not None else None)
    return EvaluationPlan(weights=weights, degradations=list(job.degradations), occluder_dir=occluders)


@dataclass(frozen=True)
class DegradedImages:
    """The degradations of a job that is trained."""

    job: ResolvedJob
    run: RunFolder
    parts: Assembly
    measure: Measure
    reporter: Reporter
    is_stopped: Callable[[], bool]

    def is_due(self, epoch: int) -> bool:
        """Whether the weights after an epoch are measured."""
        interval = self.job.degradation_interval
        return interval > 0 and epoch > 0 and epoch % interval == 0

    def after_epoch(self, epoch: int, tracking: Tracking) -> None:
        """Measure the weights after an epoch, if that is due and was not done; their file is there. Every rank calls
        it. Raises Stopped."""
        if self.is_due(epoch) and self._agreed(self.run.weights(epoch).is_file):
            self._measure(str(epoch), epoch, tracking)

    def in_the_end(self, epoch: int, tracking: Tracking) -> None:
        """Measure the best weights; the training is over."""
        if self._agreed(self.run.best_weights.is_file):
            self._measure(BEST, epoch, tracking)

    def is_left(self, best_epoch: int | None) -> bool:
        """Whether the best weights, those of an epoch, are still to be measured; every rank asks."""
        return self._agreed(lambda: not self._is_measured(BEST, best_epoch))

    def _is_measured(self, weights: str, epoch: int | None) -> bool:
        record = read_evaluation(self._folder(weights))
        return record is not None and record.complete and record.epoch in (None, epoch)

    def _agreed(self, look: Callable[[], bool]) -> bool:
        """What the first rank sees: another may see a shared folder as it was."""
        answer = [self.parts.is_first and look()]
        if self.parts.accelerator.num_processes > 1:
            broadcast_object_list(answer)
        return answer[0]

    def _folder(self, weights: str) -> EvaluationFolder:
        return EvaluationFolder(self.run.evaluations / plan_of(self.job, weights).folder_name)

    def _measure(self, weights: str, epoch: int, tracking: Tracking) -> None:
        def show(done: int, total: int) -> None:
            self.reporter.report_preparation(WHAT, done, total)

        is_measured = self.measure(self.run, plan_of(self.job, weights), self.parts, show, self.is_stopped)
        self.reporter.update(preparing=None, prepared=None)
        if not is_measured or not self.parts.is_first:
            return
        found = read_accuracies(self._folder(weights))
        means = mean_accuracies(found)
        log.info(
            "degraded images, %s weights: %s", weights, listed(f"{name} {mean:.2f}%" for name, mean in means.items())
        )
        if weights == BEST:
            tracking.log_degraded_best(found, epoch, self._folder(weights).curves("png"))
        else:
            self._write_epochs()
            tracking.log_degraded(epoch, found)

    def _write_epochs(self) -> None:
        """A row for each epoch that was measured, and condition."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["epoch", "degradation", "level", "accuracy", "low", "high", "n"])
        for epoch in range(1, self.job.num_epochs + 1):
            for one in read_accuracies(self._folder(str(epoch))) if self.is_due(epoch) else ():
                table.writerow([epoch, one.degradation, one.level, one.accuracy, one.low, one.high, one.images])
        name = plan_of(self.job).folder_name
        self.run.write(self.run.evaluations / f"{name}-epochs.csv", text.getvalue())
