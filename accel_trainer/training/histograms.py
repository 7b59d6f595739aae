"""Histograms of parameters and gradients, as a step finds them before it updates: nothing is changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from accel_trainer.training.wandb_log import GRADIENTS, PARAMETERS

# As many as wandb's own have.
NUM_BINS = 64
Histogram = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Counts (NUM_BINS,) and edges (NUM_BINS + 1,) of the values that are finite."""


@dataclass(frozen=True)
class HistogramSchedule:
    """When there are some: of the last step of every epoch, of every n-th step, or never (None)."""

    when: Literal["epoch"] | int | None

    def is_due(self, step: int, step_of_epoch: int, steps_per_epoch: int) -> bool:
        """Whether a step, counted over all epochs and in its own, from 1, has them."""
        match self.when:
            case None:
                return False
            case "epoch":
                return step_of_epoch == steps_per_epoch
            case every:
                return step % every == 0


def histograms_of(model: nn.Module, gradient_scale: float = 1.0) -> Mapping[str, Histogram]:
    """By `parameters/<name>` and `gradients/<name>`, of all parameters that are trained. The host waits for them.

    gradient_scale: by what the gradients are multiplied, as losses of fp16 are; here they are divided by it.
    """
    found: dict[str, Histogram] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        of_parameter = {PARAMETERS: (parameter, 1.0), GRADIENTS: (parameter.grad, gradient_scale)}
        for prefix, (values, scale) in of_parameter.items():
            if values is not None and (histogram := _histogram(values, scale)) is not None:
                found[f"{prefix}{name}"] = histogram
    return found


def _histogram(values: Tensor, scale: float) -> Histogram | None:
    """None where no value is finite."""
    numbers = values.detach().to("cpu").double().numpy().ravel() / scale
    finite = numbers[np.isfinite(numbers)]
    return None if finite.size == 0 else np.histogram(finite, bins=NUM_BINS)
