"""Many runners on one folder, killed at random, on a file system that lies: no job is lost, and none is done twice."""

import os
import random
import time
from itertools import count, repeat
from pathlib import Path

import pytest
from faults.lab_runner import start
from helpers import write_job

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

# All of them with `make chaos`.
NUM_JOBS, NUM_KILLS = (400, 80) if os.environ.get("ACCEL_TRAIN_THOROUGH_TESTS") else (50, 10)


@pytest.mark.slow
@pytest.mark.parametrize("lies", [False, True])
def test_of_many_jobs_each_is_finished_once_whoever_is_killed(lies: bool) -> None:
    queue, draw = QueueStore(Path("queue")), random.Random(5)
    queue.create()
    names = [f"job{number}" for number in range(NUM_JOBS)]
    for name in names:
        write_job(queue.folder / f"{name}.json", model_dir=f"runs/{name}")
    seeds = count() if lies else repeat(None)
    runners = [start(queue.folder, next(seeds)) for _ in range(8)]
    kills, deadline = 0, time.monotonic() + 200
    while time.monotonic() < deadline:
        num_done = len(queue.jobs(JobState.DONE))
        if num_done == len(names):
            break
        for number, runner in enumerate(runners):
            if not runner.is_alive():
                runners[number] = start(queue.folder, next(seeds))  # one that saw nothing more to do, or was killed
        if kills <= NUM_KILLS * num_done // NUM_JOBS:
            draw.choice(runners).kill()
            kills += 1
        time.sleep(draw.uniform(0, 0.05))
    for runner in runners:
        runner.terminate()
    for runner in runners:
        runner.join(30)
    assert sorted(job.name for job in queue.jobs(JobState.DONE)) == sorted(names)
    assert [job.path for state in JobState if state is not JobState.DONE for job in queue.jobs(state)] == []
    assert kills > NUM_KILLS // 2, "they were not disturbed"
    attempts = {name: Path(f"runs/{name}/attempts").read_text().splitlines() for name in names}
    # Who was killed between the end of a training and its record has trained it; the next one trains it again.
    again = sum(len(lines) - 1 for lines in attempts.values())
    assert again <= kills, {name: lines for name, lines in attempts.items() if len(lines) > 1}
