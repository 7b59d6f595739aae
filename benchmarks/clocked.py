"""A model that notes when it is trained: how a benchmark sees from outside when a job's steps were."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn


class Clocked(nn.Module):
    """A linear classifier; each training step's time, in seconds since 1970, becomes a line of the file `clock`."""

    def __init__(self, num_classes: int, image_size: int, clock: str) -> None:
        super().__init__()
        self.decoder = nn.Linear(3 * image_size**2, num_classes)
        self._clock = Path(clock)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and not images.is_meta:
            with self._clock.open("a") as clock:
                clock.write(f"{time.time()!r}\n")
        return self.decoder(images.flatten(1))


def steps(clock: Path) -> list[float]:
    """When the steps were."""
    return [float(line) for line in clock.read_text().splitlines()]
