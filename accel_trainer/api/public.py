"""All that `accel_trainer` itself gives. It loads this module, without torch, when the first name is used."""

from accel_trainer.api.anchors import load_pretrained
from accel_trainer.api.exported import Export, load_export
from accel_trainer.api.in_process import train
from accel_trainer.api.job_queue import Queue
from accel_trainer.api.trained_run import Run, load_run, load_runs
from accel_trainer.config import Job
from accel_trainer.config.migration.migrate import Migration, migrate
from accel_trainer.core.errors import AccelTrainError, InvalidJob, UserError
from accel_trainer.training.reporting import TrainingFailed

__all__ = [
    "AccelTrainError",
    "Export",
    "InvalidJob",
    "Job",
    "Migration",
    "Queue",
    "Run",
    "TrainingFailed",
    "UserError",
    "load_export",
    "load_pretrained",
    "load_run",
    "load_runs",
    "migrate",
    "train",
]
