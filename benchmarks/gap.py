"""From one job's last step to the next one's first: in a queue, and launched bare: `python benchmarks/gap.py`.

Bare is a shell that runs the same `accelerate launch` for one job after the other. Both in turn, A B A B, on the
bundled digits; medians. The gap has in it what both ways need: the last evaluation and save, the end of one process and
the start of the next. The queue starts the next one's trainer ahead; jobs of a few seconds (`--epochs 2`) end before
that has imported all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from clock import steps

from accel_trainer.config import read_job
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.command import LaunchOptions, plan_launch
from accel_trainer.launch.machine import this_machine

LIMIT_S = 0.3
NAMES = ("a", "b")
ENVIRONMENT = {
    **os.environ,
    ALLOW_VARIABLE: "clocked",
    "PYTHONPATH": str(Path(__file__).parent),
    "WANDB_MODE": "offline",
}


def queue_in(folder: Path) -> Path:
    return folder / "training_queue"


def write_jobs(folder: Path, epochs: int) -> None:
    queue_in(folder).mkdir()
    for name in NAMES:
        job = {
            "architecture": "clocked:Clocked",
            "architecture_args": {"clock": str(folder / f"{name}.clock")},
            "model_dir": str(folder / "models" / name),
            "dataset": "digits",
            "num_epochs": epochs,
        }
        (queue_in(folder) / f"{name}.json").write_text(json.dumps(job))


def gap_s(folder: Path) -> float:
    before, after = (steps(folder / f"{name}.clock") for name in NAMES)
    return after[0] - before[-1]


def run_queue(folder: Path) -> None:
    command = [sys.executable, "-m", "accel_trainer.cli", "run-queue", "--queue", str(queue_in(folder))]
    subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)


def run_bare(folder: Path) -> None:
    for name in NAMES:
        file = queue_in(folder) / f"{name}.json"
        attempt = Attempt(read_job(file), file, token="", log=folder / f"{name}.log")
        launch = plan_launch(attempt.job, LaunchOptions(), this_machine(), attempt.worker_args)
        with attempt.log.open("w") as log:
            subprocess.run(launch.argv, env={**ENVIRONMENT, **launch.environment}, check=True, stdout=log, stderr=log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="how often each way (%(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="of each job (%(default)s)")
    args = parser.parse_args()
    pairs: list[tuple[float, float]] = []
    for _ in range(args.pairs):
        found = []
        for run in (run_queue, run_bare):
            with tempfile.TemporaryDirectory() as folder:
                write_jobs(Path(folder), args.epochs)
                run(Path(folder))
                found.append(gap_s(Path(folder)))
        pairs.append((found[0], found[1]))
        print(f"queue {found[0]:5.2f} s   bare {found[1]:5.2f} s", flush=True)
    added = statistics.median(queue - bare for queue, bare in pairs)
    print(f"from a last step to a first, in the queue   {statistics.median(queue for queue, _ in pairs):5.2f} s")
    print(f"the same, launched bare                     {statistics.median(bare for _, bare in pairs):5.2f} s")
    print(f"what the queue adds                         {added:5.2f} s  (at most {LIMIT_S:g})")


if __name__ == "__main__":
    main()
