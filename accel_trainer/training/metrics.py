"""Sums over batches, kept on the device and read only when somebody wants to see them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from accel_trainer.data.mixing import Labels, MixedLabels


@dataclass(frozen=True)
class Scores:
    """loss: mean, as the objective defines it; acc1, acc5: percent."""

    loss: float
    acc1: float
    acc5: float

    def by_name(self, criterion: str) -> dict[str, float]:
        """The scores as metrics are named in a job file: the loss is called like its criterion."""
        scores = asdict(self)
        return {**scores, criterion: scores["loss"]}


class Meter:
    """Adds up losses and hits without making the host wait for the device.

    `sums` holds: shares of losses, hits at 1, hits at 5, images, loss divisors.
    """

    SIZE = 5

    def __init__(self, device: torch.device) -> None:
        # float64 keeps sums of millions exact; Apple's GPUs have none.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(self.SIZE, dtype=dtype, device=device)

    def reset(self) -> None:
        self.sums.zero_()

    @torch.no_grad()
    def add(self, loss: Tensor, divisor: Tensor | float, logits: Tensor, labels: Labels) -> None:
        """loss: scalar, of which the sum over `add`s divided by that of the divisors is the mean loss."""
        hits = top_hits(logits, labels)
        parts = (loss.detach(), hits[0], hits[1], len(labels), divisor)
        self.sums += torch.stack([self._on_device(part) for part in parts])

    def _on_device(self, value: Tensor | float) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(self.sums)
        return torch.full_like(self.sums[0], value)  # filled there: a copy of a number would be waited for

    @staticmethod
    def scores(sums: Sequence[float]) -> Scores:
        """The means behind `sums`, of one process or added up over all."""
        loss, hits1, hits5, images, divisor = sums
        return Scores(
            loss=loss / divisor if divisor else float("nan"),
            acc1=100 * hits1 / images if images else float("nan"),
            acc5=100 * hits5 / images if images else float("nan"),
        )


def top_hits(logits: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """How many labels are the best, and among the five best, of their logits (n, classes).

    Of a mixture, each of the two labels counts by its share.
    """
    ranked = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
    if isinstance(labels, MixedLabels):
        share = labels.share[:, None]
        hits = (ranked == labels.first[:, None]) * share + (ranked == labels.second[:, None]) * (1 - share)
    else:
        hits = ranked == labels[:, None]
    return hits[:, 0].sum(), hits.sum()
