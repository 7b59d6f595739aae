"""A training that is taken up by another number of processes."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from loops import at_newest

from accel_trainer.config import Job
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.loader import Batch, Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status
from accel_trainer.training.build import build
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.resume import resume
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.tracker_calls import end_trackers
from accel_trainer.training.tracking import RunAbout, Tracking

# An image of a step: its epoch, the step, its position in the global batch, and which one it is.
Seen = list[tuple[int, int, int, int]]


class WatchingLoader(Loader):
    """Loads a batch when it is wanted, and remembers the training images."""

    def __init__(self) -> None:
        super().__init__(0)
        self.seen: Seen = []

    def batches(self, load: Any, plans: Any) -> Any:
        def watched(plan: BatchPlan) -> Batch:
            if plan.epoch:  # 0: of a validation
                self.seen += [(plan.epoch, plan.step, plan.start + i, int(n)) for i, n in enumerate(plan.indices)]
            return load(plan)

        return super().batches(watched, plans)


class StopAfter(StopRequest):
    def __init__(self, loop: TrainingLoop, step: float) -> None:
        super().__init__()
        self.loop, self.step = loop, step

    def __bool__(self) -> bool:
        return self.loop.progress.global_step >= self.step


def train_on(folder: Path, given: dict[str, Any], stop_after: float) -> tuple[TrainingLoop, Seen]:
    """Go on with the run of a folder, on all processes that call this, to its end or to a step of it."""
    job, run, loader = Job.model_validate(given), RunFolder(folder), WatchingLoader()
    run.create()
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=job.gradient_accumulation,
        log_with=job.trackers or None,
        project_dir=str(folder),
    )
    parts = build(job, accelerator.num_processes)
    status = Status(state=RunState.STARTING, steps_per_epoch=parts.sampling.steps_per_epoch)
    reporter = Reporter(run, status, writes=accelerator.is_main_process)
    loop = TrainingLoop(job, run, parts, accelerator, loader, StopRequest(), reporter)
    resume(loop, at_newest(loop))
    loop.stop = StopAfter(loop, stop_after)
    tracking = Tracking(accelerator, job, run, RunAbout("id"))
    with suppress(Stopped):
        loop.train(tracking, plotter=None)
    tracking.close()
    end_trackers(accelerator)
    return loop, loader.seen
