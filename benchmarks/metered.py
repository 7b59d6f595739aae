"""Models whose training is timed from outside the trainer: by the steps of its optimizer.

What is of GPUs was not run on one.
"""

import json
import os
import resource
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision.models import get_model

from accel_trainer.zoo.small import MODELS


def model(*, num_classes: int, architecture: str, meter: str, warm_up: int, steps: int) -> nn.Module:
    """A classifier of torchvision, or small_cnn, whose process writes into the file `meter` how its steps went."""
    _measure(meter, warm_up, steps)
    torch.manual_seed(0)
    make: Callable[..., nn.Module] | None = MODELS.get(architecture)
    return get_model(architecture, num_classes=num_classes) if make is None else make(num_classes=num_classes)


@cache
def _measure(meter: str, warm_up: int, steps: int) -> None:
    """Once in a process, however often it builds the model."""
    register_optimizer_step_post_hook(Meter(Path(meter), warm_up, steps))


class Meter:
    """Notes the seconds that `steps` steps of any optimizer take after `warm_up` others, at whose ends it waits for the
    device, and the most memory that they had: of the GPU what tensors took, else what the process had resident."""

    def __init__(self, file: Path, warm_up: int, steps: int) -> None:
        self.file, self.warm_up, self.steps = file, warm_up, steps
        self.taken, self.began = 0, 0.0

    def __call__(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        device = optimizer.param_groups[0]["params"][0].device
        if device.type == "meta":  # a check of the job, which computes nothing
            return
        self.taken += 1
        if self.taken == self.warm_up:
            wait_for(device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            self.began = time.perf_counter()
        elif self.taken == self.warm_up + self.steps:
            wait_for(device)
            seconds = time.perf_counter() - self.began
            if os.environ.get("RANK", "0") == "0":
                self.file.write_text(json.dumps({"seconds": seconds, "memory_mb": peak_mb(device)}))


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
