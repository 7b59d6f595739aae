"""One attempt at one job: launch a trainer, stay with it, judge how it ended."""

from pathlib import Path

from accel_trainer.config import Job
from accel_trainer.launch.attempt import Attempt
from accel_trainer.queue.layout import ClaimedJob, QueuedJob
from accel_trainer.queue.retries import submission_of
from accel_trainer.queue.store import QueueStore


def attempt_of_queue(
    queue: QueueStore, job_file: QueuedJob, job: Job, token: str, log: Path, starting_params: Path | None
) -> Attempt:
    """A try at a job of a queue."""
    return Attempt(
        job=job,
        file=job_file.path,
        token=token,
        log=log,
        group=queue.folder.resolve().name,
        submission=submission_of(job_file.path),
        starting_params=starting_params,
        claim=job_file.owner if isinstance(job_file, ClaimedJob) else None,
    )
