"""What models give: logits or embeddings, of one cycle or several, of one head or several, with auxiliary heads."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from accel_trainer.core.errors import UserError

LossCycle = int | Literal["uniform"] | None


def main_output(output: Any) -> Tensor:
    """The output that counts: a plain one, or the logits of a named tuple with auxiliary heads."""
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


def by_cycle(output: Any) -> Tensor:
    """An output as (n, cycles, heads, units).

    Models give (n, units), (n, cycles, units) or (n, cycles, heads, units).
    """
    main = main_output(output)
    match main.dim():
        case 2:
            return main[:, None, None]
        case 3:
            return main[:, :, None]
        case 4:
            return main
        case _:
            raise ValueError(
                f"it gives {tuple(main.shape)}; an output is (batch, classes), (batch, cycles, classes) "
                "or (batch, cycles, heads, classes)"
            )


@dataclass(frozen=True)
class Cycles:
    """Which of a model's cycles are trained: `of` lists them; the scores are those of `reported`. Both count from 0."""

    number: int = 1
    of: tuple[int, ...] = (0,)

    @property
    def reported(self) -> int:
        """The chosen cycle; of all of them the last."""
        return self.of[-1]

    def trained(self, outputs: Tensor) -> Tensor:
        """Those that are trained of outputs (n, cycles, ...): all of them, or one, as a view. A list of numbers as the
        index would be copied to the device, and waited for, in every step."""
        return outputs if len(self.of) == self.number else outputs[:, self.of[0] : self.of[0] + 1]

    @classmethod
    def choose(cls, number: int, loss_cycle: LossCycle) -> "Cycles":
        """Those that `loss_cycle` names of a model that gives so many. Raises UserError for one that there is not."""
        if loss_cycle == "uniform":
            return cls(number, tuple(range(number)))
        cycle = -1 if loss_cycle is None else loss_cycle
        if not -number <= cycle < number:
            several = f"{number} cycles, from 0 to {number - 1} or from -{number} to -1"
            raise UserError(
                f"loss_cycle: {cycle}, but the model gives {several if number > 1 else 'one output'}"
                "; recurrent models of the zoo give all their cycles with architecture_args.return_cycles 'all'"
            )
        return cls(number, (cycle % number,))
