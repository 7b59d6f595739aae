"""What a queue costs with 100, 1,000 and 10,000 pending jobs: `status`, looking, a claim, and memory.

    python benchmarks/long_queue.py [--numbers 100 1000 10000]

`status` is the command, start-up included. `look` is what the runner does again and again while it works, for a
twentieth of the time at most; `claim` is choosing the next job and taking it, the median of 50.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil

from accel_trainer.config import read_job
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.queue.checker import PendingChecker, Version
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.scheduler import Scheduler, choose_next
from accel_trainer.queue.slots import Slots
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.stuck_jobs import StuckJobs

NUM_CLAIMS = 50
JOB = {
    "architecture": "resnet18",
    "dataset": "digits",
    "image_size": 32,
    "num_epochs": 8,
    "optimizer_args": {"lr": 0.1},
}


class AllGood(PendingChecker):
    """Reads every file once, as the runner does, and takes it for good: what torch says of it is not measured here."""

    def check(self, jobs):  # type: ignore[no-untyped-def]
        jobs = list(jobs)
        for job, version in ((job, Version.of(job.path)) for job in jobs):
            if version is not None and version not in self._needs:
                self._needs[version] = Requirements.of(read_job(job.path))
                self._problems[version] = []
        return super().check(jobs)


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(number: int, folder: Path) -> list[float]:
    queue = QueueStore(folder)
    queue.create()
    for index in range(number):
        (folder / f"job-{index}.json").write_text(json.dumps({**JOB, "seed": index}))
    command = [sys.executable, "-m", "accel_trainer.cli", "status", "--queue", str(folder)]
    status = statistics.median(
        seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)) for _ in range(5)
    )
    stuck = StuckJobs(queue, lambda job, problem: None)
    outlook = Scheduler(queue, AllGood(LaunchOptions(), folder), Retries(queue), lambda job, reason: None, stuck)
    first = seconds(outlook.refresh)
    look = statistics.median(seconds(outlook.refresh) for _ in range(5))
    slots = Slots(Machine((), False, 2), LaunchOptions())
    claims = []
    for _ in range(NUM_CLAIMS):
        began = time.perf_counter()
        chosen = choose_next(outlook.valid, outlook.waiting, lambda needs: slots.fit(needs.num_processes))
        assert chosen is not None
        outlook.take(chosen[0])
        claimed = queue.claim(chosen[0])
        claims.append(time.perf_counter() - began)
        assert claimed is not None
    assert len(queue.jobs(JobState.RUNNING)) == NUM_CLAIMS
    megabytes = psutil.Process().memory_info().rss / 2**20
    return [status, first, look, 1000 * statistics.median(claims), megabytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, nargs="+", default=[100, 1000, 10_000])
    print(
        f"{'jobs':>6}  {'status s':>8}  {'first look s':>12}  {'look s':>7}  {'claim ms':>8}  {'memory MB':>9}",
        flush=True,
    )
    for number in parser.parse_args().numbers:
        # Each in a process of its own, for its memory.
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1) as pool:
            status, first, look, claim, memory = pool.submit(measure, number, Path(folder) / "queue").result()
        print(f"{number:6,}  {status:8.2f}  {first:12.2f}  {look:7.3f}  {claim:8.2f}  {memory:9.1f}", flush=True)


if __name__ == "__main__":
    main()
