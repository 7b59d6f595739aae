"""What exactness costs, and how long a save holds up the training: `python benchmarks/saving.py [FOLDER]`.

Of resnet18 with SGD and momentum on the CPU, on the disk of FOLDER: medians of whole saves of a training loop, with
what they are made of, and of the pass that is thrown away before the first step of three and more processes.
"""

import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from results import Column, Goal, Section, median_compared

from accel_trainer.config import Job
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.loader import Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status
from accel_trainer.training.build import build
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.reporting import Reporter
from accel_trainer.training.runtime import data_parallel
from accel_trainer.training.state.background import HostMemory
from accel_trainer.training.state.saving import WeightsFile

SAVES = 9
STEP = "a step of the training, 64 images"
STALL, FINITE, COPY = "a save, as it holds up the training", "of that: looking whether all is finite", "of that: a copy"
WHOLE, DIGESTS, SYNC = "the same save, where it is waited for", "of that: checksums", "of that: waiting for the disk"
PASS = "the pass that is thrown away"
ALL = (STEP, STALL, FINITE, COPY, WHOLE, DIGESTS, SYNC, PASS)
# Steps that the training is held up for, at most.
MOST_STEPS = 1.0
ABOUT = """\
resnet18 (10 classes) on the digits, 32x32, with SGD and momentum. After an epoch that is the best so far the weights
are saved, and the state to resume from, {megabytes:.0f} MB with their checksums; then the disk is waited for. That is
done by a thread, from a copy, while the next epoch is trained: the training waits for the copy. It waits for all of it
after the last epoch, and where it is stopped. The last line is a forward and a backward pass that three and more
processes make before their first step in each attempt, so that gradients are always summed in one order. The last
column is what the training's own thread has computed."""


class Costs:
    """Milliseconds of a round, and those of them that this thread has computed."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {name: [] for name in ALL}
        self.cpu: dict[str, list[float]] = {name: [] for name in ALL}

    def begin(self) -> None:
        for values in (*self.wall.values(), *self.cpu.values()):
            values.append(0.0)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.wall[name][-1] += 1000 * (time.perf_counter() - wall)
            self.cpu[name][-1] += 1000 * (time.thread_time() - cpu)

    @contextmanager
    def of_calls(self, place: Any, call: str, name: str) -> Iterator[None]:
        """Of all calls of a function in this context."""
        before = getattr(place, call)

        def timed(*args: Any, **keywords: Any) -> Any:
            with self.of(name):
                return before(*args, **keywords)

        setattr(place, call, timed)
        try:
            yield
        finally:
            setattr(place, call, before)


def main() -> None:
    found = section(SAVES, print, Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(found.about)
    (cpu,) = found.columns
    for name, values in found.values.items():
        print(f"{name:45}{statistics.median(values):8.1f} ms {statistics.median(cpu.values[name]):8.1f} ms of CPU")


def section(rounds: int, say: Callable[[str], None], disk: Path | None = None) -> Section:
    """After a round that does not count."""
    job = Job(
        architecture="resnet18", dataset="digits", image_size=32, batch_size=64, trackers=[], optimizer="SGD",
        optimizer_args={"lr": 0.001, "momentum": 0.9}, transform_type="none",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=disk) as folder, Loader(1) as loader:
        run = RunFolder(Path(folder))
        run.create()
        stop, reporter = StopRequest(), Reporter(run, Status(state=RunState.STARTING), writes=False)
        loop = TrainingLoop(job, run, build(job, world_size=1), Accelerator(cpu=True), loader, stop, reporter)
        costs = Costs()
        for number in range(rounds + 1):
            costs.begin()
            measure(loop, costs)
            say(f"round {number} of {rounds}  a save holds up the training for {costs.wall[STALL][-1]:.0f} ms")
        size = sum(path.stat().st_size for path in files(loop))
    values = {name: values[1:] for name, values in costs.wall.items()}
    return Section(
        "What exactness costs",
        ABOUT.format(megabytes=size / 1e6),
        "ms",
        values,
        STEP,
        digits=1,
        goals=goals(values),
        columns=[Column("ms of CPU", {name: values[1:] for name, values in costs.cpu.items()}, 1)],
    )


def goals(values: dict[str, list[float]]) -> list[Goal]:
    steps = median_compared(values, STALL, STEP)
    if steps is None:
        return []
    return [Goal(f"a save holds up the training for at most {MOST_STEPS:g} step", steps, steps <= MOST_STEPS)]


def measure(loop: TrainingLoop, costs: Costs) -> None:
    """A step, the same save twice, and the pass."""
    (batch, *_) = loop.loader.batches(loop.parts.train_reader, list(loop.parts.sampling.micro_batches(1, 0))[:1])
    loop.step.train_mode()
    with costs.of(STEP):
        loop.step(batch, loop.progress.global_step, 0)
    with costs.of_calls(loop, "_check_finite", FINITE), costs.of_calls(HostMemory, "copy", COPY), loop.saver.running():
        save(loop, costs, STALL, waits=False)
    with costs.of_calls(os, "fsync", SYNC):
        save(loop, costs, WHOLE, waits=True)
    contents = [path.read_bytes() for path in files(loop)]
    with costs.of(DIGESTS):
        for content in contents:
            hashlib.sha256(content).hexdigest()
    images = batch.inputs.on(loop.accelerator.device)
    is_open, data_parallel._is_open = data_parallel._is_open, lambda model: True
    try:
        with costs.of(PASS):
            data_parallel.settle_order(loop.step.model, lambda: loop.step._forward(images, batch).loss)
    finally:
        data_parallel._is_open = is_open


def save(loop: TrainingLoop, costs: Costs, name: str, *, waits: bool) -> None:
    loop.progress.global_step += 1
    best = [WeightsFile(loop.run.best_weights, 1, loop.plain_model.state_dict())]
    with costs.of(name):
        loop.save_state(best, waits=waits)


def files(loop: TrainingLoop) -> list[Path]:
    """Those of one save."""
    return [loop.run.best_weights, *max(loop.run.resume.iterdir()).iterdir()]


if __name__ == "__main__":
    main()
