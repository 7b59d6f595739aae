"""Sums over batches, kept on the device and read only when somebody wants to see them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from accel_trainer.data.augment.mixing import Labels, MixedLabels


@dataclass(frozen=True)
class Judged:
    """What an objective finds in some examples.

    share: their part of the loss of the global batch, a scalar with a gradient: the parts of all processes and
    micro-batches add up to that loss. sums: what is added up over batches, float (num_sums,), to be made scores of.
    """

    share: Tensor
    sums: Tensor


class Meter:
    """Adds up what an objective finds in batches, without making the host wait for the device."""

    def __init__(self, device: torch.device, num_sums: int) -> None:
        self.sums = torch.zeros(num_sums, dtype=_dtype_of_sums(device), device=device)

    def reset(self) -> None:
        self.sums.zero_()

    @torch.no_grad()
    def add(self, sums: Tensor) -> None:
        self.sums += sums


def pack(device: torch.device, *values: Tensor | float) -> Tensor:
    """Numbers and tensors (scalars or vectors), some still being computed, as one float vector on the device."""
    dtype = _dtype_of_sums(device)

    def on_device(value: Tensor | float) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach().to(device=device, dtype=dtype, non_blocking=True).reshape(-1)
        # Filled there: a copy of a number would be waited for.
        return torch.full((1,), value, dtype=dtype, device=device)

    return torch.cat([on_device(value) for value in values])


def _dtype_of_sums(device: torch.device) -> torch.dtype:
    """float64 keeps sums of millions exact; Apple's GPUs have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def percent(hits: float, of: float) -> float:
    """NaN of nothing."""
    return 100 * hits / of if of else float("nan")


def top_hits(logits: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """How many labels are the best, and among the five best, of their logits (n, ..., classes); tensors (...).

    Of a mixture, each of the two labels counts by its share.
    """
    ranked = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
    beside = (-1, *[1] * (logits.dim() - 1))
    if isinstance(labels, MixedLabels):
        share = labels.share.view(beside)
        hits = (ranked == labels.first.view(beside)) * share + (ranked == labels.second.view(beside)) * (1 - share)
    else:
        hits = ranked == labels.view(beside)
    return hits[..., 0].sum(0), hits.sum((0, -1))
