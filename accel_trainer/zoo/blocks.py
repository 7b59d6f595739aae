"""What the models of the visual system share: the check of their arguments, frames, the decoder, the readout."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

ReturnCycles = Literal["last", "all"]
ReadoutKind = Literal["instantaneous", "cumulative"]


def check_count(argument: str, value: Any, *, least: int = 1) -> int:
    """`value`, a whole number of at least `least`; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{argument}: {value!r} is not a whole number of at least {least}")
    return value


def check_counts(argument: str, values: Any, *, areas: Sequence[str]) -> list[int]:
    """One whole number of at least 1 for each of the areas; ValueError otherwise."""
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != len(areas):
        raise ValueError(f"{argument}: {values!r} is not a list of {len(areas)} numbers, for {', '.join(areas)}")
    return [check_count(argument, value) for value in values]


def check_kernel_sizes(values: Any, *, areas: Sequence[str], argument: str = "kernel_sizes") -> list[int]:
    """One odd kernel size for each of the areas, so that padding can center the kernel; ValueError otherwise."""
    kernel_sizes = check_counts(argument, values, areas=areas)
    if even := [size for size in kernel_sizes if size % 2 == 0]:
        raise ValueError(f"{argument}: {even[0]} is even; kernels here have a center, so take {even[0] + 1}")
    return kernel_sizes


def check_choice(argument: str, value: Any, choices: Any) -> None:
    """`value` is one of those of a Literal type; ValueError otherwise."""
    if value not in get_args(choices):
        raise ValueError(f"{argument}: {value!r} is not one of {', '.join(map(repr, get_args(choices)))}")


def layer_names(features: Any) -> list[str]:
    """layer1, layer2, ..., one for each number of `features`; ValueError if there is none."""
    if isinstance(features, str) or not isinstance(features, Sequence) or not features:
        raise ValueError(f"features: {features!r} is not a list of numbers, one for each layer")
    return [f"layer{number}" for number in range(1, len(features) + 1)]


def frames_of_cycles(images: Tensor, num_cycles: int) -> list[Tensor]:
    """What is seen at each cycle, (batch, 3, height, width) each: an image always, frame t of a clip at cycle t.

    The last frame of a clip (batch, frames, 3, height, width) stays until the last cycle; its repetitions are one
    object, so that what was computed of it can be kept. ValueError if there are more frames than cycles.
    """
    if images.ndim == 4:
        return [images] * num_cycles
    if images.ndim != 5:
        raise ValueError(
            f"input of shape {tuple(images.shape)}: neither images (batch, 3, height, width) "
            "nor clips (batch, frames, 3, height, width)"
        )
    frames = images.unbind(1)
    if not 1 <= len(frames) <= num_cycles:
        raise ValueError(
            f"a clip of {len(frames)} frames: the model runs for {num_cycles} cycles and sees one frame at each; "
            f"give it 1 to {num_cycles} frames, or another num_cycles"
        )
    return [*frames, *[frames[-1]] * (num_cycles - len(frames))]


@dataclass(frozen=True)
class Head:
    """What a decoder is made of: the arguments of that name of every model here, checked."""

    num_classes: int
    head_depth: int
    head_units: int | None
    num_heads: int

    def __post_init__(self) -> None:
        for argument in ("num_classes", "head_depth", "num_heads"):
            check_count(argument, getattr(self, argument))
        if self.head_units is not None:
            check_count("head_units", self.head_units)
            if self.head_depth == 1:
                raise ValueError(f"head_units: {self.head_units}, but with head_depth 1 there is no hidden layer")


class Decoder(nn.Module):
    """Logits of the highest area: the mean over positions, then parallel stacks of linear layers with ReLU between.

    Takes activations (batch, features, height, width), gives (batch, num_classes), or, with more than one head,
    (batch, 1, num_heads, num_classes) as of one cycle. Weights are PyTorch's defaults.
    """

    def __init__(self, features: int, head: Head) -> None:
        super().__init__()
        hidden = [head.head_units or features] * (head.head_depth - 1)
        widths = [features, *hidden, head.num_classes]
        self.heads = nn.ModuleList(_linear_layers(widths) for _ in range(head.num_heads))

    def forward(self, activations: Tensor) -> Tensor:
        """Activations (batch, features, height, width) to logits."""
        pooled = activations.mean((-2, -1))
        logits = [head(pooled) for head in self.heads]
        return logits[0] if len(logits) == 1 else torch.stack(logits, dim=1)[:, None]


def _linear_layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def read_out(
    decoder: Decoder, cycles: Sequence[Tensor], return_cycles: ReturnCycles, readout: ReadoutKind = "instantaneous"
) -> Tensor:
    """Logits of the last cycle, or of all (batch, cycles, ...), of the highest area's activations.

    With the cumulative readout those of a cycle are the sum of its own and all earlier ones.
    """
    if return_cycles == "last" and readout == "instantaneous":
        cycles = cycles[-1:]
    logits: list[Tensor] = [decoder(activations) for activations in cycles]
    if readout == "cumulative":
        logits = list(accumulate(logits, torch.add))  # torch.cumsum has no deterministic form on CUDA
    if return_cycles == "last":
        return logits[-1]
    has_cycles = logits[0].ndim > 2  # of several heads
    return torch.cat(logits, dim=1) if has_cycles else torch.stack(logits, dim=1)


def initialize_xavier_uniform(model: nn.Module) -> None:
    """Xavier (Glorot) uniform weights and biases of 0, in every convolution and linear layer."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
