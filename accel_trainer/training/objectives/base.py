"""What an objective is, what it measures of a batch, and the shapes of outputs that models give."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.data.augment.mixing import Labels, MixedLabels
from accel_trainer.data.loader import Batch


@dataclass(frozen=True)
class BatchResult:
    """What an objective computes for some examples.

    loss: this rank's part of the loss of the global batch, a scalar with a gradient: the parts of all processes and
    micro-batches add up to that loss. sums: float (num_sums,), added up over batches; `scores` turns them into scores.
    """

    loss: Tensor
    sums: Tensor


class Meter:
    """Adds up the sums of batches on the device, without making the host wait for it."""

    def __init__(self, device: torch.device, num_sums: int) -> None:
        self.sums = torch.zeros(num_sums, dtype=_dtype_of_sums(device), device=device)

    def reset(self) -> None:
        """Start at zero again."""
        self.sums.zero_()

    @torch.no_grad()
    def add(self, sums: Tensor) -> None:
        """Add the sums of a batch, float (num_sums,) on the device."""
        self.sums += sums


def float_vector(device: torch.device, *values: Tensor | float) -> Tensor:
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


def percent(hits: float, total: float) -> float:
    """100 * hits / total; NaN if the total is 0."""
    return 100 * hits / total if total else float("nan")


def top_hits(logits: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """How many labels are the best, and among the five best, of their logits (n, ..., classes); tensors (...).

    Of a mixture, each of the two labels counts by its weight.
    """
    ranked = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
    beside = (-1, *[1] * (logits.dim() - 1))
    if isinstance(labels, MixedLabels):
        weight = labels.weight.view(beside)
        hits = (ranked == labels.first.view(beside)) * weight + (ranked == labels.second.view(beside)) * (1 - weight)
    else:
        hits = ranked == labels.view(beside)
    return hits[..., 0].sum(0), hits.sum((0, -1))


LossCycle = int | Literal["uniform"] | None


def main_output(output: Any) -> Tensor:
    """The main output: a tensor itself, or the logits of a named tuple with auxiliary heads."""
    return output if isinstance(output, Tensor) else output.logits


def auxiliary_logits(output: Any) -> list[tuple[float, Tensor]]:
    """(weight in the loss, logits) of each auxiliary head, with the weights of the papers.

    GoogLeNet (Szegedy et al. 2014) 0.3 each; Inception v3 0.4, as torchvision's and PyTorch's recipes have it.
    """
    if isinstance(output, Tensor):
        return []
    weights = {"aux_logits": 0.4, "aux_logits1": 0.3, "aux_logits2": 0.3}
    heads = output._asdict()
    return [(weights[head], heads[head]) for head in weights if heads.get(head) is not None]


def by_cycle(output: Any, axis: int = 1) -> Tensor:
    """An output as (n, cycles, heads, units).

    Models give (n, units), (n, cycles, units) or (n, cycles, heads, units); with axis 2, (n, units, cycles).
    """
    main = main_output(output)
    match main.dim():
        case 2:
            return main[:, None, None]
        case 3:
            return main.movedim(axis, 1)[:, :, None]
        case 4:
            return main
        case _:
            raise ValueError(
                f"it gives {tuple(main.shape)}; an output is (batch, classes), (batch, cycles, classes) "
                "or (batch, cycles, heads, classes)"
            )


@dataclass(frozen=True)
class Cycles:
    """Which of a model's cycles are trained: `indices` lists them; the scores are those of `reported`.

    Both count from 0. axis: where outputs of three dimensions have the cycles, 1 or 2.
    """

    count: int = 1
    indices: tuple[int, ...] = (0,)
    axis: int = 1

    @property
    def reported(self) -> int:
        """The chosen cycle; of all of them the last."""
        return self.indices[-1]

    def of(self, output: Any) -> Tensor:
        """An output as `by_cycle` gives it."""
        return by_cycle(output, self.axis)

    def select(self, outputs: Tensor) -> Tensor:
        """Those that are trained of outputs (n, cycles, ...): all of them, or one, as a view. A list of numbers as the
        index would be copied to the device, and waited for, in every step."""
        return outputs if len(self.indices) == self.count else outputs[:, self.indices[0] : self.indices[0] + 1]

    @classmethod
    def choose(cls, number: int, loss_cycle: LossCycle, axis: int = 1) -> "Cycles":
        """Those that `loss_cycle` names of a model that gives so many. Raises UserError for one that there is not."""
        if loss_cycle == "uniform":
            return cls(number, tuple(range(number)), axis)
        cycle = -1 if loss_cycle is None else loss_cycle
        if not -number <= cycle < number:
            several = f"{number} cycles, from 0 to {number - 1} or from -{number} to -1"
            raise UserError(
                f"loss_cycle: {cycle}, but the model gives {several if number > 1 else 'one output'}"
                "; recurrent models of the zoo give all their cycles with architecture_args.return_cycles 'all'"
            )
        return cls(number, (cycle % number,), axis)


class Objective(Protocol):
    """Gives the same loss, gradient and scores whatever the number of processes that share a batch."""

    score_names: tuple[str, ...]
    """Beside the loss, in percent; the first is what people look at while a model trains."""
    num_sums: int

    def to(self, device: torch.device) -> Self:
        """Move its tensors, such as class weights, to a device."""
        ...

    def trained(self, output: Any) -> list[Tensor]:
        """The parts of an output that the loss depends on."""
        ...

    def compute(self, output: Any, batch: Batch, *, is_shared: bool) -> BatchResult:
        """The loss and sums of a batch.

        output: what the model gives for the inputs of the batch. is_shared: other processes hold the other parts of
        the batch, as in training, and each of them calls this.
        """
        ...

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """`loss`, and what `score_names` names; NaN where nothing was seen."""
        ...
