"""How long a save stalls the training of resnet18 with SGD and momentum: `python benchmarks/saving.py [FOLDER]`.

Medians of whole saves of a training loop on the CPU, on the disk of FOLDER, and of what they are made of; and their
share of the default interval between two saves, which must be less than 5%.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from accel_trainer.config import Job
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.loader import Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status
from accel_trainer.training.build import build
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.state import checkpoint
from accel_trainer.training.tracking import Tracking

SAVES = 9
LIMIT = 0.05
# What a save is made of: functions of the loop and of checkpoint.py, and what they do.
STAGES = {
    "_check_finite": "looking whether all is finite",
    "_on_host": "copying the weights",
    "save": "packing the weights",
    "_pickled": "packing the optimizer's state",
    "_sha256": "checksums",
    "_write": "writing and waiting for the disk",
}


def main() -> None:
    job = Job(architecture="resnet18", dataset="digits", image_size=32, batch_size=64, trackers=[])
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder, Loader(1) as loader:
        run = RunFolder(Path(folder))
        run.create()
        stop, reporter = StopRequest(), Reporter(run, Status(state=RunState.STARTING), writes=False)
        loop = TrainingLoop(job, run, build(job, world_size=1), Accelerator(cpu=True), loader, stop, reporter)
        stop.signal = 15
        try:  # one step, for momentum
            loop.train(Tracking(loop.accelerator, job, run, None, "id"), plotter=None)
        except Stopped:
            spent = measure(loop)
            (newest, *_) = sorted(run.resume.iterdir(), reverse=True)
            size = sum(file.stat().st_size for file in newest.iterdir())
    whole = statistics.median(spent.pop("whole"))
    share = whole / (60 * job.save_every_minutes)
    print(f"a state of resnet18, {size / 1e6:.0f} MB       {1000 * whole:6.0f} ms")
    for name, seconds in spent.items():
        print(f"  {STAGES[name]:32}{1000 * statistics.median(seconds):6.0f} ms")
    print(f"of {job.save_every_minutes:g} minutes between saves    {share:8.3%}  (at most {LIMIT:.0%})")


def measure(loop: TrainingLoop) -> dict[str, list[float]]:
    """Seconds of each save, and of its stages (checksums are taken while writing, and not counted twice)."""
    spent: dict[str, list[float]] = {"whole": []}
    for name in STAGES:
        place: Any = loop if hasattr(loop, name) else checkpoint
        setattr(place, name, timed(getattr(place, name), spent.setdefault(name, []), spent))
    for _ in range(SAVES):
        for seconds in spent.values():
            seconds.append(0.0)
        loop.progress.global_step += 1
        began = time.perf_counter()
        loop.save_state()
        spent["whole"][-1] = time.perf_counter() - began
    return spent


def timed(call: Callable[..., Any], into: list[float], spent: dict[str, list[float]]) -> Callable[..., Any]:
    """The same function, which adds what it takes, less what is counted inside it, to the last of `into`."""

    @wraps(call)
    def call_timed(*args: Any) -> Any:
        began, inside = time.perf_counter(), counted(spent)
        try:
            return call(*args)
        finally:
            into[-1] += time.perf_counter() - began - (counted(spent) - inside)

    return call_timed


def counted(spent: dict[str, list[float]]) -> float:
    return sum(seconds[-1] for name, seconds in spent.items() if name != "whole")


if __name__ == "__main__":
    main()
