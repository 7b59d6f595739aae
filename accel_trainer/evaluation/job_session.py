"""One evaluation by a job of the queue, from its first status to its last."""

import logging
import time
from contextlib import ExitStack

from accel_trainer.config import EvaluationJob
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.text import duration
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.launched_evaluation import measured_run
from accel_trainer.run.status import RunState
from accel_trainer.training.reporting import Reporter, TrainingResult
from accel_trainer.training.session import SessionOptions, reported

log = logging.getLogger(__name__)
# How often the log says how far it is, in parts of the whole.
LOG_EVERY = 0.1
STOPPED = "asked to stop"


def measure(job: EvaluationJob, folder: RunFolder, stop: StopRequest, options: SessionOptions) -> TrainingResult:
    """Evaluate a run to the end, or until a stop is requested. Every process of a launch calls it.

    folder: that of the evaluation, whose lock the caller holds; the status and the log are there, and nothing else of
    the run is written. What goes wrong is in the result, and raised by nobody. What was measured when it ends is there,
    and the next attempt goes on with it.
    """

    def work(reporter: Reporter) -> TrainingResult:
        from accel_trainer.evaluation.run_plan import EvaluationStopped, run_plan  # torch takes seconds
        from accel_trainer.evaluation.tracked import log_evaluation

        reporter.update(state=RunState.MEASURING, preparing=None)
        with _Progress(reporter, is_first=options.rank == 0) as progress:
            try:
                measured = run_plan(
                    measured_run(job), job.plan, folder, on_progress=progress.report, is_stopped=lambda: bool(stop)
                )
            except EvaluationStopped:
                return TrainingResult(RunState.PREEMPTED, None if options.rank == 0 else STOPPED)
        record = measured.record
        reporter.update(corrupt_images=len(record.corrupt))
        log.info("%d images under %d conditions: %s", record.images, len(record.conditions), measured.folder.path)
        if options.rank == 0:
            log_evaluation(measured_run(job), measured.folder)
        return TrainingResult(RunState.FINISHED)

    return reported(work, folder, stop, options, stall_timeout=job.stall_timeout, inputs=frozenset())


class _Progress(ExitStack):
    """How far an evaluation is, in its status and its log. What has no batches, at the beginning and at the end, counts
    as alive."""

    def __init__(self, reporter: Reporter, *, is_first: bool) -> None:
        super().__init__()
        self._reporter, self._is_first = reporter, is_first
        self._began, self._logged = 0.0, 0.0
        self.enter_context(reporter.alive())

    def report(self, done: int, total: int) -> None:
        """So many answers are there of so many, an image under a condition each."""
        reporter, now = self._reporter, time.monotonic()
        if not self._began:
            self.close()
            self._began, self._before = now, done
        if reporter.is_due() or done == total:
            new = done - self._before
            left_s = (now - self._began) * (total - done) / new if new else None
            reporter.update(images=done, num_images=total, eta_s=left_s)
            if self._is_first and (done - self._logged >= LOG_EVERY * total or done == total):
                self._logged = done
                left = "" if not left_s else f", {duration(left_s)} left"
                log.info("%d of %d degraded images%s", done, total, left)
        if done == total:
            self.enter_context(reporter.alive())
