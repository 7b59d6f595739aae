"""The loop that one writes with PyTorch for GPUs: `python gpu_loop.py FOLDER`, or by torchrun.

`work.json` in the folder says what to do. `synthetic` images are one batch that stays on the device; `files` are read
by torchvision's reference pipeline in a DataLoader; `timm` has timm's loader and timm's optimizer. The steps are timed
as `accel-train profile` times its own. What is of GPUs was not run on one.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from loading_peers import timm_batches, torchvision_images
from metered import model, wait_for
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function
from torch.utils.data import DataLoader, RandomSampler

from accel_trainer.config import Job
from accel_trainer.core.spans import Phase, recording, span, timed
from accel_trainer.profiling.measure import TRACED_STEPS
from accel_trainer.profiling.recorder import SpanRecorder, exclusive_seconds
from accel_trainer.training.runtime.kernels import chosen_kernels

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Work:
    """batch_size: of this process."""

    folder: str
    device: str
    images: str
    files: str
    architecture: str
    num_classes: int
    image_size: int
    batch_size: int
    workers: int
    lr: float
    momentum: float
    warm_up: int
    steps: int
    channels_last: bool
    compile: bool
    fast_kernels: bool

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def model(self) -> nn.Module:
        return model(
            num_classes=self.num_classes,
            architecture=self.architecture,
            meter=str(Path(self.folder, "meter.json")),
            warm_up=self.warm_up,
            steps=self.steps,
        )

    def batches(self, device: torch.device, world: int) -> Iterator[Batch]:
        """Without end."""
        if self.images == "synthetic":
            images = torch.randn(self.batch_size, 3, self.image_size, self.image_size, device=device)
            labels = torch.randint(self.num_classes, (self.batch_size,), device=device)
            return repeat((images.contiguous(memory_format=self.layout), labels))
        if self.images == "timm":
            how = {"pin_memory": device.type == "cuda", "distributed": world > 1, "use_multi_epochs_loader": True}
            loader = timm_batches(Path(self.files), self.workers, self.batch_size, self.image_size, str(device), **how)
            return chain.from_iterable(repeat(loader))
        files = torchvision_images(Path(self.files), self.image_size)
        number = self.batch_size * (self.warm_up + self.steps + 2 * TRACED_STEPS)
        return iter(
            DataLoader(
                files,
                self.batch_size,
                sampler=RandomSampler(files, replacement=True, num_samples=number),
                num_workers=self.workers,
                pin_memory=device.type == "cuda",
            )
        )

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.images == "timm":
            from timm.optim import create_optimizer_v2

            return create_optimizer_v2(model, "momentum", lr=self.lr, momentum=self.momentum)
        return torch.optim.SGD(model.parameters(), lr=self.lr, momentum=self.momentum)


def join(work: Work) -> tuple[torch.device, int]:
    """The device of this process, and how many train together."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cpu")
    if work.device == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device, world


class Training:
    def __init__(self, work: Work, device: torch.device, world: int) -> None:
        self.work, self.device = work, device
        model = work.model().to(device, memory_format=work.layout)
        if work.compile:
            model.compile()
        self.optimizer = work.optimizer(model)
        on = [device] if device.type == "cuda" else None
        self.model = DistributedDataParallel(model, device_ids=on) if world > 1 else model
        torch.manual_seed(int(os.environ.get("RANK", 0)))
        self.batches = work.batches(device, world)
        self.loss = torch.zeros((), device=device)

    def train(self, steps: int) -> None:
        for images, labels in timed(islice(self.batches, steps)):
            with span(Phase.STEP):
                images = images.to(self.device, non_blocking=True, memory_format=self.work.layout)
                labels = labels.to(self.device, non_blocking=True)
                with torch.autocast(self.device.type, torch.bfloat16):
                    loss = F.cross_entropy(self.model(images), labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.loss += loss.detach()


def measure(training: Training) -> dict[str, float]:
    """Seconds of a step by its phases, after the warm-up."""
    work, recorder = training.work, SpanRecorder(training.device)
    with recording(recorder):
        training.train(work.warm_up + work.steps)
    wait_for(training.device)
    return exclusive_seconds(recorder.main_thread_spans(Phase.STEP, work.warm_up))


def trace(training: Training, file: Path) -> None:
    with (
        torch.profiler.profile() as profiler,
        recording(SpanRecorder(training.device, record_function)),
    ):
        training.train(TRACED_STEPS)
    if os.environ.get("RANK", "0") == "0":
        profiler.export_chrome_trace(str(file))


def main() -> None:
    folder = Path(sys.argv[1])
    work = Work(**json.loads((folder / "work.json").read_text()))
    device, world = join(work)
    with chosen_kernels(Job(architecture="resnet18", fast_kernels=work.fast_kernels), device):
        training = Training(work, device, world)
        phases = measure(training)
        trace(training, folder / "trace.json")
    if os.environ.get("RANK", "0") == "0":
        (folder / "answer.json").write_text(json.dumps({"step": phases}))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
