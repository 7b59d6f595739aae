"""A job file, validated; sweeps; the JSON schema."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accel_trainer.config.evaluation_job import EvaluationJob
    from accel_trainer.config.file_names import job_name
    from accel_trainer.config.job import Job, ResolvedJob
    from accel_trainer.config.parse import QueueJob, parse_job, read_job, read_queue_job
else:
    # Loaded when one of them is used: the definition of a job takes as long as all that a verb needs besides.
    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from accel_trainer.config import evaluation_job, file_names, job, parse

        return next(
            getattr(module, name) for module in (file_names, job, evaluation_job, parse) if hasattr(module, name)
        )


__all__ = [
    "EvaluationJob",
    "Job",
    "QueueJob",
    "ResolvedJob",
    "job_name",
    "parse_job",
    "read_job",
    "read_queue_job",
]
