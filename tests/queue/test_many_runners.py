"""Many runners on one folder, killed at random, on a file system that lies: no job is lost, and none is done twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import write_job

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

RUNNER = Path(__file__).with_name("lab_runner.py")
# All of them with `make chaos`.
NUM_JOBS, NUM_KILLS = (400, 80) if os.environ.get("ACCEL_TRAIN_THOROUGH_TESTS") else (100, 20)


def start(queue: QueueStore, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(RUNNER), str(queue.folder), *words])


@pytest.mark.slow
@pytest.mark.parametrize("lies", [False, True])
def test_of_many_jobs_each_is_finished_once_whoever_is_killed(lies: bool) -> None:
    queue, draw = QueueStore(Path("queue")), random.Random(5)
    queue.create()
    names = [f"job{number}" for number in range(NUM_JOBS)]
    for name in names:
        write_job(queue.folder / f"{name}.json", model_dir=f"runs/{name}")
    seeds = iter(range(10_000))
    words = (lambda: [str(next(seeds))]) if lies else list
    runners = [start(queue, *words()) for _ in range(8)]
    kills, deadline = 0, time.monotonic() + 200
    while time.monotonic() < deadline:
        for number, runner in enumerate(runners):
            if runner.poll() is not None and len(queue.jobs(JobState.DONE)) < len(names):
                runners[number] = start(queue, *words())  # one that saw nothing more to do, or was killed
        if len(queue.jobs(JobState.DONE)) == len(names):
            break
        if kills < NUM_KILLS:
            draw.choice(runners).send_signal(signal.SIGKILL)
            kills += 1
        time.sleep(draw.uniform(0, 0.3))
    for runner in runners:
        runner.terminate()
    for runner in runners:
        runner.wait(30)
    assert sorted(job.name for job in queue.jobs(JobState.DONE)) == sorted(names)
    assert [job.path for state in JobState if state is not JobState.DONE for job in queue.jobs(state)] == []
    assert kills > NUM_KILLS // 4, "they were not disturbed"
    attempts = {name: Path(f"runs/{name}/attempts").read_text().splitlines() for name in names}
    # Who was killed between the end of a training and its record has trained it; the next one trains it again.
    again = sum(len(lines) - 1 for lines in attempts.values())
    assert again <= kills, {name: lines for name, lines in attempts.items() if len(lines) > 1}
