"""Who takes part in the comparison on GPUs, how each is started, and what is found of each.

Imports no torch: what a process has resident counts from what the one has that starts it.
"""

import json
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from contestants import PEERS, Contestant
from races import Failed, run, unsettled_environment

from accel_trainer.core.processes import usable_cores
from accel_trainer.core.spans import Phase

LR, MOMENTUM = 0.01, 0.9
# Classes of the photographs (loading.py).
NUM_CLASSES = 4
SWITCHES = ("channels_last", "compile", "fast_kernels")
# What makes the host wait for the device. A CPU's tensors make nobody wait: of these the reads are counted that would.
WAITS = {
    "cuda": {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"},
    "cpu": {"aten::_local_scalar_dense"},
}


@dataclass(frozen=True)
class Sizes:
    """batch_size: of each process; images: photographs to train on, at least; steps: measured, after the warm-up."""

    architectures: tuple[str, ...]
    image_size: int
    batch_size: int
    images: int
    warm_up: int
    steps: int


FULL = Sizes(("resnet18", "resnet50"), image_size=224, batch_size=256, images=4096, warm_up=30, steps=100)
SMALL = Sizes(("small_cnn",), image_size=16, batch_size=4, images=32, warm_up=2, steps=3)


@dataclass(frozen=True)
class Task:
    """What everybody trains, and how. device: cuda or cpu; places: the GPUs' names for `--gpus`, or a number for each
    process on the CPU; files, pack: the photographs."""

    architecture: str
    sizes: Sizes
    device: str
    places: tuple[str, ...]
    on: frozenset[str]
    files: str
    pack: str

    @property
    def settings(self) -> dict[str, bool]:
        return {name: name in self.on for name in SWITCHES}

    @property
    def global_batch(self) -> int:
        return self.sizes.batch_size * len(self.places)

    @property
    def title(self) -> str:
        one = "GPU" if self.device == "cuda" else "process on the CPU"
        many = "GPUs" if self.device == "cuda" else "processes on the CPU"
        where = f"1 {one}" if len(self.places) == 1 else f"{len(self.places)} {many}"
        return f"{self.architecture}, {where}: {named(self.on)}"


def named(on: frozenset[str]) -> str:
    return ", ".join(name for name in SWITCHES if name in on) or "plain"


ALL_SETTINGS = {
    named(on): on
    for each in product((False, True), repeat=len(SWITCHES))
    for on in [frozenset(name for name, is_on in zip(SWITCHES, each, strict=True) if is_on)]
}


@dataclass(frozen=True)
class Found:
    """Of one run. waiting: share of the time of a step in which the device had no images, 0 to 1; host_waits: how often
    in a step the host waited for the device; memory_mb: the most (metered.py)."""

    images_per_s: float
    waiting: float
    host_waits: float
    memory_mb: float


def _peer(images: str) -> Callable[[Task, Path], list[str]]:
    def prepare(task: Task, folder: Path) -> list[str]:
        sizes, number = task.sizes, len(task.places)
        work = {"folder": str(folder), "device": task.device, "images": images, "files": task.files}
        work |= {"architecture": task.architecture, "num_classes": NUM_CLASSES, "image_size": sizes.image_size}
        work |= {"batch_size": sizes.batch_size, "workers": max(1, usable_cores() // number), "lr": LR}
        work |= {"momentum": MOMENTUM, "warm_up": sizes.warm_up, "steps": sizes.steps, **task.settings}
        (folder / "work.json").write_text(json.dumps(work))
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"] if number > 1 else []
        return [sys.executable, *torchrun, str(PEERS / "gpu_loop.py"), str(folder)]

    return prepare


def _ours(task: Task, folder: Path) -> list[str]:
    sizes = task.sizes
    meter = {"meter": str(folder / "meter.json"), "warm_up": sizes.warm_up, "steps": sizes.steps}
    job = {
        "architecture": "metered:model",
        "architecture_args": {"architecture": task.architecture, **meter},
        "model_dir": str(folder / "model"),
        "data_root": str(Path(task.pack).parent),
        "dataset": Path(task.pack).name,
        "image_size": sizes.image_size,
        "batch_size": task.global_batch,
        "optimizer": "SGD",
        "optimizer_args": {"lr": LR, "momentum": MOMENTUM},
        "mixed_precision": "bf16",
        "trackers": [],
        **task.settings,
    }
    (folder / "job.json").write_text(json.dumps(job))
    where = [f"--gpus={','.join(task.places)}"]
    if task.device == "cpu":
        where = ["--cpu", f"--num-processes={len(task.places)}"]
    measured = [f"--steps={sizes.steps}", f"--warm-up={sizes.warm_up}", f"--trace={folder / 'trace.json'}", "--json"]
    command = [sys.executable, "-m", "accel_trainer.cli", "profile", "job.json", "--allow-imports", "metered"]
    return [*command, *measured, *where]


SYNTHETIC, OURS = "bare PyTorch loop, images on the device", "accel-train, raw pack"
CONTESTANTS = (
    Contestant(SYNTHETIC, _peer("synthetic")),
    Contestant("bare PyTorch loop, torchvision's loading", _peer("files")),
    Contestant("timm's loader and optimizer in the bare loop", _peer("timm"), "timm"),
    Contestant(OURS, _ours, is_ours=True),
)


def measured(contestant: Contestant, task: Task, folder: Path) -> Found:
    """Run it in an empty folder. Raises Failed."""
    log = folder / "log.txt"
    # So that everybody counts the GPUs alike.
    environment = {**unsettled_environment(folder), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    run(contestant.prepare(task, folder), folder, log, environment)
    answer = _last_json(log) if contestant.is_ours else json.loads((folder / "answer.json").read_text())
    if not (folder / "meter.json").exists():
        raise Failed(f"made fewer steps than {task.sizes.warm_up + task.sizes.steps}")
    meter = json.loads((folder / "meter.json").read_text())
    phases = answer["step"]
    return Found(
        images_per_s=task.sizes.steps * task.global_batch / meter["seconds"],
        waiting=phases[Phase.WAITING] / sum(phases.values()),
        host_waits=host_waits(json.loads((folder / "trace.json").read_text())["traceEvents"], WAITS[task.device]),
        memory_mb=meter["memory_mb"],
    )


def _last_json(log: Path) -> Any:
    """Of what a command has printed. Raises Failed."""
    rows = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("{")]
    if not rows:
        raise Failed("printed no result")
    return json.loads(rows[-1])


def host_waits(events: Sequence[Mapping[str, Any]], names: set[str]) -> float:
    """How many events of these names a step has, of a Chrome trace in which steps are named so, in any thread.

    Raises Failed where there is no step.
    """
    steps = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if _is_step(event))
    if not steps:
        raise Failed("its trace has no step")
    starts = [start for start, _ in steps]

    def is_inside(time: float) -> bool:
        number = bisect_right(starts, time) - 1
        return number >= 0 and time <= steps[number][1]

    waits = sum(event.get("name") in names and is_inside(event["ts"]) for event in events)
    return waits / len(steps)


def _is_step(event: Mapping[str, Any]) -> bool:
    return event.get("name") == Phase.STEP and event.get("cat") == "user_annotation" and "dur" in event
