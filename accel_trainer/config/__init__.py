"""A job file, validated; sweeps; the JSON schema."""

from accel_trainer.config.job import Job, ResolvedJob
from accel_trainer.config.parse import job_name, parse_job, read_job

__all__ = ["Job", "ResolvedJob", "job_name", "parse_job", "read_job"]
