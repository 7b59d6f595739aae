"""What a look at a long queue costs a runner that knows all of it: counted, since no machine is always as fast."""

import sys
import tracemalloc
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from helpers import write_job

from accel_trainer.config import read_job
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.checker import PendingChecker, Version
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.scheduler import Scheduler
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs

NUM_JOBS = 300
# 57 and 2,230 with Python 3.11; 82 and 2,660 were too many.
MOST_CALLS, MOST_BYTES = 70, 2450


class KnowsAll(PendingChecker):
    """As a checker is once torch has said of every file that it is valid."""

    def know(self, jobs: Iterable[QueuedJob]) -> None:
        needs = Requirements.of(read_job(next(iter(jobs)).path))
        for job in jobs:
            version = Version.of(job.path)
            assert version is not None
            self._needs[version] = Requirements(run=f"{needs.run}-{job.name}")
            self._problems[version] = []


def calls_of(act: Callable[[], object]) -> int:
    """How many functions are called, of Python's and of C."""
    number = 0

    def count(_frame: FrameType, event: str, _about: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(before)
    return number


def test_a_later_look_is_a_few_calls_and_bytes_for_each_job(queue: QueueStore) -> None:
    job = write_job(queue.folder / "job-0.json").read_bytes()
    for number in range(1, NUM_JOBS):
        (queue.folder / f"job-{number}.json").write_bytes(job)
    checker = KnowsAll(LaunchOptions(), queue.folder)
    stuck = StuckJobs(queue, lambda job, problem: None)
    scheduler = Scheduler(queue, checker, Retries(queue), lambda job, reason: None, stuck)
    tracemalloc.start()
    try:
        checker.know(queue.jobs(JobState.PENDING))
        scheduler.refresh()
        scheduler.refresh()
        num_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(scheduler.valid) == NUM_JOBS
    assert calls_of(scheduler.refresh) < MOST_CALLS * NUM_JOBS
    assert num_bytes < MOST_BYTES * NUM_JOBS
