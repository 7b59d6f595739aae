"""CORnet: models of the ventral stream with areas V1, V2, V4 and IT (Kubilius, Schrimpf et al., NeurIPS 2019).

Z is feedforward; R and RT feed each area's state back into it, RT with one cycle per connection; S repeats a
bottleneck within each area.
"""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from accel_trainer.zoo.blocks import (
    Decoder,
    Head,
    ReturnCycles,
    check_choice,
    check_count,
    check_counts,
    check_kernel_sizes,
    frames_of_cycles,
    initialize_xavier_uniform,
    read_out,
)

AREAS = ("V1", "V2", "V4", "IT")
_GROUPS = 32  # of the GroupNorms of R and RT
BOTTLENECK_SCALE = 4  # hidden channels of an area of S per channel of its output


def cornet_z(
    *,
    num_classes: int = 1000,
    features: Sequence[int] = (64, 128, 256, 512),
    kernel_sizes: Sequence[int] = (7, 3, 3, 3),
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
) -> nn.Module:
    """CORnet-Z, feedforward: in each area a convolution, ReLU and max-pooling. 2,071,656 parameters by default.

    Takes images (batch, 3, height, width) of any size, gives logits (batch, num_classes).

    num_classes (1000): units of the output layer.
    features ([64, 128, 256, 512]): channels of V1, V2, V4 and IT.
    kernel_sizes ([7, 3, 3, 3]): of the convolutions of V1, V2, V4 and IT; odd.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as IT has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, 1, num_heads, num_classes) is given.
    """
    head = Head(num_classes, head_depth, head_units, num_heads)
    return CORnetZ(features, kernel_sizes, head)


def cornet_r(
    *,
    num_classes: int = 1000,
    num_cycles: int = 5,
    features: Sequence[int] = (64, 128, 256, 512),
    kernel_sizes: Sequence[int] = (7, 3, 3, 3),
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
    return_cycles: ReturnCycles = "last",
) -> nn.Module:
    """CORnet-R: an area sees the area below as it is in the same cycle. 5,208,936 parameters by default.

    Takes images (batch, 3, height, width) of any size, or clips (batch, frames, 3, height, width) whose frame t is
    seen at cycle t and whose last frame stays; gives logits (batch, num_classes). In the first cycle only V1 has
    input, so the logits of that cycle do not depend on the image.

    num_classes (1000): units of the output layer.
    num_cycles (5): how often every area is updated; at least 2, for the image to reach IT.
    features ([64, 128, 256, 512]): channels of V1, V2, V4 and IT; multiples of 32.
    kernel_sizes ([7, 3, 3, 3]): of the input convolutions of V1, V2, V4 and IT; odd. Recurrent ones are 3x3.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as IT has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, cycles, num_heads, num_classes) is given.
    return_cycles ("last"): "all" gives the logits of every cycle (batch, num_cycles, num_classes).
    """
    head = Head(num_classes, head_depth, head_units, num_heads)
    return CORnetR(features, kernel_sizes, head, num_cycles, return_cycles, biological_unrolling=False)


def cornet_rt(
    *,
    num_classes: int = 1000,
    num_cycles: int = 5,
    features: Sequence[int] = (64, 128, 256, 512),
    kernel_sizes: Sequence[int] = (7, 3, 3, 3),
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
    return_cycles: ReturnCycles = "last",
) -> nn.Module:
    """CORnet-RT: an area sees the area below as it was one cycle before. 5,208,936 parameters by default.

    Takes images (batch, 3, height, width) of any size, or clips (batch, frames, 3, height, width) whose frame t is
    seen at cycle t and whose last frame stays; gives logits (batch, num_classes). What V1 sees at cycle t reaches IT
    at cycle t + 3: logits of the first 3 cycles do not depend on the input, and what is seen in the last 3 is not read.

    num_classes (1000): units of the output layer.
    num_cycles (5): how often every area is updated; at least 4, for the image to reach IT.
    features ([64, 128, 256, 512]): channels of V1, V2, V4 and IT; multiples of 32.
    kernel_sizes ([7, 3, 3, 3]): of the input convolutions of V1, V2, V4 and IT; odd. Recurrent ones are 3x3.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as IT has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, cycles, num_heads, num_classes) is given.
    return_cycles ("last"): "all" gives the logits of every cycle (batch, num_cycles, num_classes).
    """
    head = Head(num_classes, head_depth, head_units, num_heads)
    return CORnetR(features, kernel_sizes, head, num_cycles, return_cycles, biological_unrolling=True)


def cornet_s(
    *,
    num_classes: int = 1000,
    num_cycles: Sequence[int] = (2, 4, 2),
    features: Sequence[int] = (64, 128, 256, 512),
    kernel_sizes: Sequence[int] = (7, 3, 3, 3),
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
) -> nn.Module:
    """CORnet-S: recurrent within each area, feedforward between areas. 53,416,616 parameters by default.

    Published recipe: SGD, learning rate 0.1, divided by 10 every 20 epochs, 43 epochs, weight decay 1e-4, batch 256.
    Takes images (batch, 3, height, width) of any size, gives logits (batch, num_classes). An area is done before the
    next begins, so there are no cycles of the whole model: no clips, and no logits but the last.

    num_classes (1000): units of the output layer.
    num_cycles ([2, 4, 2]): recurrences of V2, V4 and IT.
    features ([64, 128, 256, 512]): channels of V1, V2, V4 and IT.
    kernel_sizes ([7, 3, 3, 3]): of V1's first convolution and of the bottlenecks of V2, V4 and IT; odd.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as IT has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, 1, num_heads, num_classes) is given.
    """
    head = Head(num_classes, head_depth, head_units, num_heads)
    return CORnetS(features, kernel_sizes, head, num_cycles)


class CORnetZ(nn.Module):
    """See `cornet_z`."""

    def __init__(self, features: Sequence[int], kernel_sizes: Sequence[int], head: Head) -> None:
        super().__init__()
        channels = [3, *check_counts("features", features, areas=AREAS)]
        kernels = check_kernel_sizes(kernel_sizes, areas=AREAS)
        self.V1 = _pooled_area(channels[0], channels[1], kernels[0], stride=2)
        self.V2 = _pooled_area(channels[1], channels[2], kernels[1], stride=1)
        self.V4 = _pooled_area(channels[2], channels[3], kernels[2], stride=1)
        self.IT = _pooled_area(channels[3], channels[4], kernels[3], stride=1)
        self.decoder = Decoder(channels[4], head)
        initialize_xavier_uniform(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 3, height, width) to logits."""
        output: Tensor = self.decoder(self.IT(self.V4(self.V2(self.V1(images)))))
        return output


def _pooled_area(inputs: int, outputs: int, kernel_size: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


class CORnetR(nn.Module):
    """CORnet-R, or CORnet-RT with `biological_unrolling`: see `cornet_r` and `cornet_rt`.

    They start with the weights that PyTorch gives layers, as in the authors' code.
    """

    def __init__(
        self,
        features: Sequence[int],
        kernel_sizes: Sequence[int],
        head: Head,
        num_cycles: int,
        return_cycles: ReturnCycles,
        *,
        biological_unrolling: bool,
    ) -> None:
        super().__init__()
        channels = [3, *check_counts("features", features, areas=AREAS)]
        if uneven := [count for count in channels[1:] if count % _GROUPS]:
            raise ValueError(f"features: {uneven[0]} is not a multiple of {_GROUPS}, the groups of GroupNorm")
        kernels = check_kernel_sizes(kernel_sizes, areas=AREAS)
        check_choice("return_cycles", return_cycles, ReturnCycles)
        least = len(AREAS) if biological_unrolling else 2
        if check_count("num_cycles", num_cycles) < least:
            raise ValueError(f"num_cycles: {num_cycles}, but what V1 sees reaches IT only in cycle {least}")
        self.num_cycles = num_cycles
        self.return_cycles = return_cycles
        self.biological_unrolling = biological_unrolling
        self.V1 = RecurrentArea(channels[0], channels[1], kernels[0], stride=4)
        self.V2 = RecurrentArea(channels[1], channels[2], kernels[1], stride=2)
        self.V4 = RecurrentArea(channels[2], channels[3], kernels[2], stride=2)
        self.IT = RecurrentArea(channels[3], channels[4], kernels[3], stride=2)
        self.decoder = Decoder(channels[4], head)

    def forward(self, images: Tensor) -> Tensor:
        """Images or clips to logits, as `cornet_r` describes them."""
        frames = frames_of_cycles(images, self.num_cycles)
        states = self._silent(frames[0])
        highest = []
        for cycle, frame in enumerate(frames):
            states = self._next(frame, states, first=cycle == 0)
            highest.append(states[-1])
        return read_out(self.decoder, highest, self.return_cycles)

    def _areas(self) -> list["RecurrentArea"]:
        return [self.V1, self.V2, self.V4, self.IT]

    def _silent(self, below: Tensor) -> list[Tensor]:
        """The states before the first cycle: zeros of the areas' shapes for images of this size."""
        states = []
        for area in self._areas():
            below = area.silent(below)
            states.append(below)
        return states

    def _next(self, frame: Tensor, states: Sequence[Tensor], *, first: bool) -> list[Tensor]:
        """The areas' states one cycle later; in the first, areas above V1 have no input."""
        updated: list[Tensor] = []
        below: Tensor | None = frame
        for area, state in zip(self._areas(), states, strict=True):
            updated.append(area(below, state))
            below = state if self.biological_unrolling else updated[-1]
            if first:
                below = None
        return updated


class RecurrentArea(nn.Module):
    """An area of CORnet-R and -RT: its processed input, added to its state, processed again; this is its new state."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, stride: int) -> None:
        super().__init__()
        self.input = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2),
            nn.GroupNorm(_GROUPS, outputs),
            nn.ReLU(),
        )
        self.recurrent = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, outputs),
            nn.ReLU(),
        )
        self.features = outputs
        self.stride = stride

    def forward(self, below: Tensor | None, state: Tensor) -> Tensor:
        """The new state; without input from below, zeros stand for the processed input."""
        output: Tensor = self.recurrent(state if below is None else self.input(below) + state)
        return output

    def silent(self, below: Tensor) -> Tensor:
        """Zeros of the shape that the output has for an input of this shape."""
        height, width = (-(-size // self.stride) for size in below.shape[-2:])
        return below.new_zeros(below.shape[0], self.features, height, width)


class CORnetS(nn.Module):
    """See `cornet_s`."""

    def __init__(
        self, features: Sequence[int], kernel_sizes: Sequence[int], head: Head, num_cycles: Sequence[int]
    ) -> None:
        super().__init__()
        channels = check_counts("features", features, areas=AREAS)
        kernels = check_kernel_sizes(kernel_sizes, areas=AREAS)
        cycles = check_counts("num_cycles", num_cycles, areas=AREAS[1:])
        self.V1 = nn.Sequential(
            nn.Conv2d(3, channels[0], kernels[0], stride=2, padding=kernels[0] // 2, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(channels[0], channels[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        )
        self.V2 = BottleneckArea(channels[0], channels[1], kernels[1], cycles[0])
        self.V4 = BottleneckArea(channels[1], channels[2], kernels[2], cycles[1])
        self.IT = BottleneckArea(channels[2], channels[3], kernels[3], cycles[2])
        self.decoder = Decoder(channels[3], head)
        initialize_cornet_s(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 3, height, width) to logits."""
        output: Tensor = self.decoder(self.IT(self.V4(self.V2(self.V1(images)))))
        return output


class BottleneckArea(nn.Module):
    """An area of CORnet-S: a bottleneck applied `num_cycles` times, its BatchNorms alone being different each time.

    The first time it halves the resolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, num_cycles: int) -> None:
        super().__init__()
        hidden = BOTTLENECK_SCALE * outputs
        self.input = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.skip = nn.Sequential(nn.Conv2d(outputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))
        self.expand = nn.Conv2d(outputs, hidden, 1, bias=False)
        self.spatial = nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, bias=False)
        self.reduce = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.expand_norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in range(num_cycles))
        self.spatial_norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in range(num_cycles))
        self.reduce_norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(num_cycles))
        self.output = nn.Identity()

    def forward(self, below: Tensor) -> Tensor:
        """Activations (batch, inputs, height, width) to (batch, outputs, height / 2, width / 2), rounded up."""
        return repeat_bottleneck(
            self.input(below),
            (self.expand, self.spatial, self.reduce),
            self.skip,
            zip(self.expand_norms, self.spatial_norms, self.reduce_norms, strict=True),
            self.output,
        )


def repeat_bottleneck(
    state: Tensor,
    convolutions: tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d],
    skip: Callable[[Tensor], Tensor],
    norms: Iterable[tuple[nn.Module, nn.Module, nn.Module]],
    output: nn.Module,
) -> Tensor:
    """The recurrence of an area of CORnet-S, which halves height and width, rounded up.

    convolutions: 1x1 to more channels, kxk among these, 1x1 back, with the same weights in every cycle; norms: those of
    each cycle, after each convolution. The first cycle halves the resolution, and has `skip` beside it; others the
    identity. output: is given the state of each cycle, as the authors' code has it, so that it can be looked at there.
    """
    expand, spatial, reduce = convolutions
    for cycle, (expand_norm, spatial_norm, reduce_norm) in enumerate(norms):
        hidden = F.relu(expand_norm(expand(state)))
        stride, padding = 2 if cycle == 0 else 1, spatial.kernel_size[0] // 2
        hidden = F.relu(spatial_norm(F.conv2d(hidden, spatial.weight, stride=stride, padding=padding)))
        skipped = skip(state) if cycle == 0 else state
        state = output(F.relu(reduce_norm(reduce(hidden)) + skipped))
    return state


def initialize_cornet_s(model: nn.Module) -> None:
    """Convolutions from a normal distribution with sd sqrt(2 / (kernel area * output channels)); norms stay 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "cornet_z": cornet_z,
    "cornet_r": cornet_r,
    "cornet_rt": cornet_rt,
    "cornet_s": cornet_s,
}
