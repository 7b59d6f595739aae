"""What the formats of a traced graph have in common: the module that is traced, and the comparison with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from accel_trainer.core.errors import UserError
from accel_trainer.export.form import ExportOptions
from accel_trainer.export.source import Source
from accel_trainer.training.meta_model import cycle_axis
from accel_trainer.training.objectives.base import main_output

# How far outputs may be from the model's own, in units of the largest of those where that is above 1.
TOLERANCE = 1e-4
# Neither is that of the example with which a graph is traced.
COMPARED_BATCHES = (1, 3)
TRACED_BATCH = 2


class Traced(nn.Module):
    """A model's main output: of all cycles as it gives them, or of the last, where its logits have the cycles in an
    axis of their own."""

    def __init__(self, model: nn.Module, axis: int | None) -> None:
        super().__init__()
        self.model, self.axis = model, axis

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (batch, 3, height, width), or clips, to outputs (batch, units) or (batch, cycles, units)."""
        output = main_output(self.model(inputs))
        return output if self.axis is None else output.select(self.axis, output.shape[self.axis] - 1)


@dataclass(frozen=True)
class Graph:
    """A module to trace, an example of its input, and how input and output are called."""

    module: nn.Module
    example: Tensor
    input_name: str
    output_name: str
    note: str | None

    @classmethod
    def of(cls, source: Source, options: ExportOptions) -> "Graph":
        """Raises UserError for cycles that the model does not give."""
        has_cycles = source.num_cycles > 1
        if options.cycles == "all" and not has_cycles:
            raise UserError(
                f"{source.architecture} gives logits of one cycle only",
                option="cycles",
                hint='leave it out, or train with "return_cycles": "all"',
            )
        axis = cycle_axis(source.model) if has_cycles and options.cycles == "last" else None
        note = None
        if has_cycles:
            which = f"the last of {source.num_cycles} cycles" if axis is not None else f"all {source.num_cycles} cycles"
            note = f"Its output is that of {which}."
        return cls(
            Traced(source.model, axis).eval(),
            source.random_inputs(TRACED_BATCH),
            "clips" if source.job.video else "images",
            "embeddings" if source.job.is_contrastive else "logits",
            note,
        )

    def compare(self, run: Callable[[Tensor], Tensor], source: Source, what: str) -> dict[str, float]:
        """The largest differences of what is given by `run` from the module's own output, by the size of a batch.

        Raises UserError where they are above TOLERANCE.
        """
        found = {}
        for number in COMPARED_BATCHES:
            inputs = source.random_inputs(number)
            with torch.inference_mode():
                expected = self.module(inputs)
            given = run(inputs)
            if given.shape != expected.shape:
                raise UserError(f"{what}: gives {tuple(given.shape)}, the model {tuple(expected.shape)}")
            difference = float((given - expected).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
                raise UserError(
                    f"{what}: its output differs by {difference:.1e} from the model's, so it is not written",
                    hint="it may amplify rounding, as norms of constant maps do; try another format, or another model",
                )
            found[f"{what}, batch of {number}"] = difference
        return found


def untraceable(source: Source, what: str, error: Exception) -> UserError:
    """Of a model that torch cannot make a graph of."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[0].strip() if lines else type(error).__name__
    return UserError(
        f"{source.architecture} cannot be written as {what}: {reason[:300]}",
        hint="what its code does may depend on values, or on the size of a batch",
    )


def without_places(graph: Any) -> None:
    """Take out of a graph, and the graphs in it, where in the code and on whose disk its operations were written."""
    for module in graph.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", "source_fn_stack", "torch_fn", "from_node"):
                    node.meta.pop(key, None)
