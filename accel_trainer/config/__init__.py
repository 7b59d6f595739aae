"""A job file, validated; sweeps; the JSON schema."""

from accel_trainer.config.job import Job
from accel_trainer.config.parse import job_name, parse_job, read_job

__all__ = ["Job", "job_name", "parse_job", "read_job"]
