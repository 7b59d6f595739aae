"""CORnet-S+ and CORnet-S custom: CORnet-S with recurrence in V1 too, and heads that see where in the image.

They are called `cornet_s_plus` and `cornet_s_custom`, with the arguments and the names of weights that they have in
https://github.com/ddcoggan/DNN_natural_occlusion.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from accel_trainer.zoo.blocks import check_count, check_counts, check_kernel_sizes
from accel_trainer.zoo.cornet import AREAS, BOTTLENECK_SCALE, initialize_cornet_s, repeat_bottleneck


def cornet_s_plus(
    *,
    num_classes: int = 1000,
    R: Sequence[int] = (1, 2, 4, 2),  # noqa: N803 - the names of its authors
    K: Sequence[int] = (3, 3, 3, 3),  # noqa: N803
    F: Sequence[int] = (128, 128, 256, 512),  # noqa: N803
    S: int = BOTTLENECK_SCALE,  # noqa: N803
    out_channels: int = 1,
    head_depth: int = 2,
    head_width: int = 3,
) -> nn.Module:
    """CORnet-S+, with a V1 like the other areas, wider, and a deeper head. 71,138,684 parameters by default.

    Takes images (batch, 3, height, width) of any size, gives logits (batch, num_classes), or of several heads
    (batch, num_classes, heads).

    num_classes (1000): units of the output layer.
    R ([1, 2, 4, 2]): recurrences of V1, V2, V4 and IT.
    K ([3, 3, 3, 3]): kernel sizes of the bottlenecks of V1, V2, V4 and IT; odd.
    F ([128, 128, 256, 512]): channels of V1, V2, V4 and IT.
    S (4): hidden channels of a bottleneck per channel of its output.
    out_channels (1): parallel heads; `loss_cycle` says which of them is trained.
    head_depth (2): linear layers of a head, with ReLU between them; their widths fall in equal steps.
    head_width (3): IT is averaged over a grid of so many rows and columns before the head.
    """
    return CORnetSPlus(num_classes, R, K, F, S, out_channels, head_depth, head_width)


def cornet_s_custom(
    *,
    num_classes: int = 1000,
    R: Sequence[int] = (1, 2, 4, 2),  # noqa: N803
    K: Sequence[int] = (3, 3, 3, 3),  # noqa: N803
    F: Sequence[int] = (64, 128, 256, 512),  # noqa: N803
    S: int = BOTTLENECK_SCALE,  # noqa: N803
    out_channels: int = 1,
    head_depth: int = 1,
    head_width: int = 1,
) -> nn.Module:
    """CORnet-S custom: CORnet-S with a V1 like the other areas. 54,011,688 parameters by default.

    Takes images (batch, 3, height, width) of any size, gives logits (batch, num_classes), or of several heads
    (batch, num_classes, heads).

    num_classes (1000): units of the output layer.
    R ([1, 2, 4, 2]): recurrences of V1, V2, V4 and IT.
    K ([3, 3, 3, 3]): kernel sizes of the bottlenecks of V1, V2, V4 and IT; odd.
    F ([64, 128, 256, 512]): channels of V1, V2, V4 and IT.
    S (4): hidden channels of a bottleneck per channel of its output.
    out_channels (1): parallel heads; `loss_cycle` says which of them is trained.
    head_depth (1): linear layers of a head, with ReLU between them; their widths fall in equal steps.
    head_width (1): IT is averaged over a grid of so many rows and columns before the head.
    """
    return CORnetSPlus(num_classes, R, K, F, S, out_channels, head_depth, head_width)


class CORnetSPlus(nn.Module):
    """See `cornet_s_plus` and `cornet_s_custom`.

    Convolutions start as those of CORnet-S, linear layers from a normal distribution with sd sqrt(2 / (in * out)) and
    biases of 0.
    """

    cycle_axis = 2
    """Where the logits have the heads, of which one or all are trained, as other models have their cycles."""

    def __init__(
        self,
        num_classes: int,
        recurrences: Sequence[int],
        kernel_sizes: Sequence[int],
        features: Sequence[int],
        scale: int,
        num_heads: int,
        head_depth: int,
        head_width: int,
    ) -> None:
        super().__init__()
        cycles = check_counts("R", recurrences, areas=AREAS)
        kernels = check_kernel_sizes(kernel_sizes, areas=AREAS, argument="K")
        channels = check_counts("F", features, areas=AREAS)
        check_count("S", scale)
        seen = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False),
                norm1=nn.BatchNorm2d(channels[0]),
                nonlin1=nn.ReLU(),
                pool=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        inputs = [channels[0], *channels]
        areas = [
            RepeatedBottleneck(*both, kernel, cycle, scale)
            for both, kernel, cycle in zip(pairwise(inputs), kernels, cycles, strict=True)
        ]
        self.V1 = nn.Sequential(OrderedDict(cycle0=seen, CORblock=areas[0]))
        self.V2, self.V4, self.IT = areas[1:]
        self.decoder = GridDecoder(channels[3], num_classes, num_heads, head_depth, head_width)
        initialize_cornet_s(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 3, height, width) to logits."""
        output: Tensor = self.decoder(self.IT(self.V4(self.V2(self.V1(images)))))
        return output


class RepeatedBottleneck(nn.Module):
    """An area: `cornet.BottleneckArea` by the names that its parts have in the authors' files."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, num_cycles: int, scale: int) -> None:
        super().__init__()
        hidden = scale * outputs
        self.conv_input = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.skip = nn.Conv2d(outputs, outputs, 1, stride=2, bias=False)
        self.norm_skip = nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(outputs, hidden, 1, bias=False)
        self.conv2 = nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, bias=False)
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.num_cycles = num_cycles
        for cycle in range(num_cycles):
            for number, features in enumerate((hidden, hidden, outputs), start=1):
                self.add_module(f"norm{number}_{cycle}", nn.BatchNorm2d(features))
        self.output = nn.Identity()

    def forward(self, below: Tensor) -> Tensor:
        """Activations (batch, inputs, height, width) to (batch, outputs, height / 2, width / 2), rounded up."""
        convolutions = (self.conv1, self.conv2, self.conv3)
        return repeat_bottleneck(self.conv_input(below), convolutions, self._skipped, self._norms(), self.output)

    def _skipped(self, state: Tensor) -> Tensor:
        output: Tensor = self.norm_skip(self.skip(state))
        return output

    def _norms(self) -> Iterator[tuple[nn.Module, nn.Module, nn.Module]]:
        for cycle in range(self.num_cycles):
            first, second, third = (self.get_submodule(f"norm{number}_{cycle}") for number in (1, 2, 3))
            yield first, second, third


class GridDecoder(nn.Module):
    """Logits of IT: the means over the cells of a grid, then parallel stacks of linear layers with ReLU between.

    Takes activations (batch, features, height, width), gives (batch, num_classes), or of several heads
    (batch, num_classes, heads). Widths are `np.linspace(inputs, num_classes, depth + 1)`, cut to whole numbers.
    """

    def __init__(self, features: int, num_classes: int, num_heads: int, depth: int, grid: int) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        self.num_heads = check_count("out_channels", num_heads)
        self.depth = check_count("head_depth", depth)
        self.grid = check_count("head_width", grid)
        widths = np.linspace(features * grid**2, num_classes, depth + 1).astype(int).tolist()
        for head in range(num_heads):
            for number, (inputs, outputs) in enumerate(pairwise(widths)):
                layer = nn.Linear(inputs, outputs)
                nn.init.normal_(layer.weight, std=(2 / (inputs * outputs)) ** 0.5)
                nn.init.zeros_(layer.bias)
                self.add_module(f"linear_{head}_{number}", layer)

    def forward(self, activations: Tensor) -> Tensor:
        """Activations (batch, features, height, width) to logits."""
        pooled = pool_to_grid(activations, self.grid).flatten(1)
        logits = [self._head(pooled, head) for head in range(self.num_heads)]
        return logits[0] if len(logits) == 1 else torch.stack(logits, dim=2)

    def _head(self, values: Tensor, head: int) -> Tensor:
        for number in range(self.depth):
            values = self.get_submodule(f"linear_{head}_{number}")(functional.relu(values) if number else values)
        return values


def pool_to_grid(activations: Tensor, grid: int) -> Tensor:
    """`functional.adaptive_avg_pool2d(activations, grid)`, which has no deterministic form on CUDA.

    activations: (batch, features, height, width); gives (batch, features, grid, grid). Cells may overlap.
    """
    height, width = activations.shape[-2:]
    rows = [activations[..., first:last, :].mean(-2) for first, last in _cells(height, grid)]
    cells = [
        torch.stack([row[..., first:last].mean(-1) for first, last in _cells(width, grid)], dim=-1) for row in rows
    ]
    return torch.stack(cells, dim=-2)


def _cells(size: int, grid: int) -> list[tuple[int, int]]:
    return [(cell * size // grid, -(-(cell + 1) * size // grid)) for cell in range(grid)]


MODELS: dict[str, Callable[..., nn.Module]] = {"cornet_s_plus": cornet_s_plus, "cornet_s_custom": cornet_s_custom}
