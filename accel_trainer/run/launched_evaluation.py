"""Where what is launched to evaluate a run reports: a folder inside that run, with its own lock, status and log."""

from dataclasses import dataclass

from accel_trainer.config import EvaluationJob, QueueJob
from accel_trainer.core.errors import UserError
from accel_trainer.core.machine_errors import try_to_write
from accel_trainer.run.folder import RunFolder


@dataclass(frozen=True)
class LaunchedEvaluation(RunFolder):
    """The folder of an evaluation, as a trainer has its run folder: so the files of the run itself, and its lock, are
    left alone, and evaluations of other names run beside it."""

    def _make(self, *, tries_to_write: bool) -> None:
        """The run itself has to be there: a new folder in its place would be taken for one."""
        for folder in (self.path.parent, self.path):
            if folder.is_symlink():
                raise UserError(
                    f"evaluate: {folder} is a link: what is written there would go elsewhere; remove it "
                    "(the run folder itself may be a link)"
                )
            folder.mkdir(exist_ok=True)
        if tries_to_write:
            try_to_write(self.path)


def folder_of(job: QueueJob) -> RunFolder:
    """The folder in which a job writes, whatever its kind."""
    return LaunchedEvaluation(job.run_path) if isinstance(job, EvaluationJob) else RunFolder(job.run_path)


def measured_run(job: EvaluationJob) -> RunFolder:
    """The run that a job evaluates, whose `evaluate` is a path."""
    return RunFolder(job.run_path.parent.parent)
