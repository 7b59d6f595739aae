"""B, BL, BT and BLT networks: bottom-up, lateral and top-down connections unrolled in time.

B and BL are rcnn-sat's (Spoerer et al., PLoS Comput Biol 2020), for images of 128x128; the top-down connections are
those of Spoerer et al., Frontiers in Psychology 2017.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from accel_trainer.zoo.blocks import (
    Decoder,
    Head,
    ReadoutKind,
    ReturnCycles,
    check_choice,
    check_count,
    check_counts,
    check_kernel_sizes,
    frames_of_cycles,
    initialize_xavier_uniform,
    layer_names,
    read_out,
)


def b(
    *,
    num_classes: int = 1000,
    num_cycles: int = 1,
    features: Sequence[int] = (96, 128, 192, 256, 512, 1024, 2048),
    kernel_sizes: Sequence[int] = (7, 5, 3, 3, 3, 3, 1),
    readout: ReadoutKind = "instantaneous",
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
    return_cycles: ReturnCycles = "last",
) -> nn.Module:
    """B, bottom-up connections only: every cycle is a pass of its own. 11,037,768 parameters by default.

    To read only the last of several cycles would leave the others without effect, and is refused.
    Takes images (batch, 3, height, width), of at least 64 pixels with 7 layers, or clips (batch, frames, 3, height,
    width) whose frame t is seen at cycle t and whose last frame stays; gives logits (batch, num_classes). Layers are
    named layer1, layer2, ..., decoder.

    num_classes (1000): units of the output layer.
    num_cycles (1): passes through all layers, each with BatchNorms of its own.
    features ([96, 128, 192, 256, 512, 1024, 2048]): channels of each layer; as many layers as numbers.
    kernel_sizes ([7, 5, 3, 3, 3, 3, 1]): of all convolutions of each layer; odd.
    readout ("instantaneous"): "cumulative" adds to a cycle's logits those of the cycles before.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as the last layer has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, cycles, num_heads, num_classes) is given.
    return_cycles ("last"): "all" gives the logits of every cycle (batch, num_cycles, num_classes).
    """
    head = Head(num_classes, head_depth, head_units, num_heads)
    return BLT(features, kernel_sizes, head, num_cycles, readout, return_cycles, lateral=False, top_down=False)


def bl(
    *,
    num_classes: int = 1000,
    num_cycles: int = 8,
    features: Sequence[int] = (96, 128, 192, 256, 512, 1024, 2048),
    kernel_sizes: Sequence[int] = (7, 5, 3, 3, 3, 3, 1),
    readout: ReadoutKind = "instantaneous",
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
    return_cycles: ReturnCycles = "last",
) -> nn.Module:
    """BL: bottom-up connections, and lateral ones from a layer's own past. 28,870,920 parameters by default.

    What a layer was in one cycle reaches itself in the next.
    Takes images (batch, 3, height, width), of at least 64 pixels with 7 layers, or clips (batch, frames, 3, height,
    width) whose frame t is seen at cycle t and whose last frame stays; gives logits (batch, num_classes). Layers are
    named layer1, layer2, ..., decoder.

    num_classes (1000): units of the output layer.
    num_cycles (8): passes through all layers, at least 2, each with BatchNorms of its own.
    features ([96, 128, 192, 256, 512, 1024, 2048]): channels of each layer; as many layers as numbers.
    kernel_sizes ([7, 5, 3, 3, 3, 3, 1]): of all convolutions of each layer; odd.
    readout ("instantaneous"): "cumulative" adds to a cycle's logits those of the cycles before.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as the last layer has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, cycles, num_heads, num_classes) is given.
    return_cycles ("last"): "all" gives the logits of every cycle (batch, num_cycles, num_classes).
    """
    head = Head(num_classes, head_depth, head_units, num_heads)
    return BLT(features, kernel_sizes, head, num_cycles, readout, return_cycles, lateral=True, top_down=False)


def bt(
    *,
    num_classes: int = 1000,
    num_cycles: int = 8,
    features: Sequence[int] = (96, 128, 192, 256, 512, 1024, 2048),
    kernel_sizes: Sequence[int] = (7, 5, 3, 3, 3, 3, 1),
    readout: ReadoutKind = "instantaneous",
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
    return_cycles: ReturnCycles = "last",
) -> nn.Module:
    """BT: bottom-up connections, and top-down ones from the layer above. 37,528,840 parameters by default.

    What a layer was in one cycle reaches the layer below in the next, as a transposed convolution of stride 2.
    Takes images (batch, 3, height, width), of at least 64 pixels with 7 layers, or clips (batch, frames, 3, height,
    width) whose frame t is seen at cycle t and whose last frame stays; gives logits (batch, num_classes). Layers are
    named layer1, layer2, ..., decoder.

    num_classes (1000): units of the output layer.
    num_cycles (8): passes through all layers, at least 2, each with BatchNorms of its own.
    features ([96, 128, 192, 256, 512, 1024, 2048]): channels of each layer; as many layers as numbers.
    kernel_sizes ([7, 5, 3, 3, 3, 3, 1]): of all convolutions of each layer; odd.
    readout ("instantaneous"): "cumulative" adds to a cycle's logits those of the cycles before.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as the last layer has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, cycles, num_heads, num_classes) is given.
    return_cycles ("last"): "all" gives the logits of every cycle (batch, num_cycles, num_classes).
    """
    head = Head(num_classes, head_depth, head_units, num_heads)
    return BLT(features, kernel_sizes, head, num_cycles, readout, return_cycles, lateral=False, top_down=True)


def blt(
    *,
    num_classes: int = 1000,
    num_cycles: int = 8,
    features: Sequence[int] = (96, 128, 192, 256, 512, 1024, 2048),
    kernel_sizes: Sequence[int] = (7, 5, 3, 3, 3, 3, 1),
    readout: ReadoutKind = "instantaneous",
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
    return_cycles: ReturnCycles = "last",
) -> nn.Module:
    """BLT: bottom-up, lateral and top-down connections. 55,302,408 parameters by default.

    What a layer was in one cycle reaches itself, and the layer below as a transposed convolution of stride 2, in
    the next.
    Takes images (batch, 3, height, width), of at least 64 pixels with 7 layers, or clips (batch, frames, 3, height,
    width) whose frame t is seen at cycle t and whose last frame stays; gives logits (batch, num_classes). Layers are
    named layer1, layer2, ..., decoder.

    num_classes (1000): units of the output layer.
    num_cycles (8): passes through all layers, at least 2, each with BatchNorms of its own.
    features ([96, 128, 192, 256, 512, 1024, 2048]): channels of each layer; as many layers as numbers.
    kernel_sizes ([7, 5, 3, 3, 3, 3, 1]): of all convolutions of each layer; odd.
    readout ("instantaneous"): "cumulative" adds to a cycle's logits those of the cycles before.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as the last layer has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, cycles, num_heads, num_classes) is given.
    return_cycles ("last"): "all" gives the logits of every cycle (batch, num_cycles, num_classes).
    """
    head = Head(num_classes, head_depth, head_units, num_heads)
    return BLT(features, kernel_sizes, head, num_cycles, readout, return_cycles, lateral=True, top_down=True)


class BLT(nn.Module):
    """See `b`, `bl`, `bt` and `blt`."""

    def __init__(
        self,
        features: Sequence[int],
        kernel_sizes: Sequence[int],
        head: Head,
        num_cycles: int,
        readout: ReadoutKind,
        return_cycles: ReturnCycles,
        *,
        lateral: bool,
        top_down: bool,
    ) -> None:
        super().__init__()
        self.layer_names = layer_names(features)
        channels = [3, *check_counts("features", features, areas=self.layer_names)]
        kernels = check_kernel_sizes(kernel_sizes, areas=self.layer_names)
        check_choice("readout", readout, ReadoutKind)
        check_choice("return_cycles", return_cycles, ReturnCycles)
        _check_every_cycle_counts(num_cycles, readout, return_cycles, recurrent=lateral or top_down)
        if top_down and len(self.layer_names) == 1:
            raise ValueError("features: one layer alone has no top-down connections; take two or more")
        self.num_cycles = num_cycles
        self.readout = readout
        self.return_cycles = return_cycles
        for index, name in enumerate(self.layer_names):
            above = channels[index + 2] if top_down and index + 2 < len(channels) else None
            layer = Layer(
                channels[index], channels[index + 1], above, kernels[index], num_cycles, pool=index > 0, lateral=lateral
            )
            self.add_module(name, layer)
        self.decoder = Decoder(channels[-1], head)
        initialize_xavier_uniform(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images or clips to logits, as `blt` describes them. Raises ValueError for images that are too small."""
        frames = frames_of_cycles(images, self.num_cycles)
        self._check_size(frames[0])
        before: list[Tensor | None] = [None] * len(self.layer_names)
        seen, highest = None, []
        for cycle, frame in enumerate(frames):
            if frame is not seen:
                seen, image_drive = frame, self._layers()[0].drive(frame)
            activations = self._next(image_drive, before, cycle)
            highest.append(activations[-1])
            before = [*activations]
        return read_out(self.decoder, highest, self.return_cycles, self.readout)

    def _layers(self) -> list["Layer"]:
        layers = (self.get_submodule(name) for name in self.layer_names)
        return [layer for layer in layers if isinstance(layer, Layer)]

    def _next(self, image_drive: Tensor, before: Sequence[Tensor | None], cycle: int) -> list[Tensor]:
        """Every layer's activations in a cycle, given those of the cycle before."""
        activations: list[Tensor] = []
        for layer, own, above in zip(self._layers(), before, [*before[1:], None], strict=True):
            drive = layer.drive(activations[-1]) if activations else image_drive
            activations.append(layer(drive, own, above, cycle))
        return activations

    def _check_size(self, frame: Tensor) -> None:
        height, width = frame.shape[-2:]
        least = 2 ** (len(self.layer_names) - 1)
        if min(height, width) < least:
            raise ValueError(
                f"images of {height}x{width}: {len(self.layer_names)} layers with pooling between them need at least "
                f"{least}x{least}; give features and kernel_sizes of fewer layers, or larger images"
            )


def _check_every_cycle_counts(num_cycles: int, readout: str, return_cycles: str, *, recurrent: bool) -> None:
    """ValueError where parameters would be without effect on the logits."""
    check_count("num_cycles", num_cycles)
    if recurrent and num_cycles == 1:
        raise ValueError("num_cycles: 1, but lateral and top-down connections act one cycle late; take 2, or blt_b")
    if not recurrent and num_cycles > 1 and return_cycles == "last" and readout == "instantaneous":
        raise ValueError(
            f"num_cycles: {num_cycles}, but without lateral and top-down connections the last cycle knows nothing of "
            'the others; take 1, return_cycles "all", or readout "cumulative"'
        )


class Layer(nn.Module):
    """A layer: the sum of its bottom-up, lateral and top-down convolutions, the cycle's BatchNorm, ReLU.

    Its activations of the cycle before, and those of the layer above, are None in the first cycle, which is what
    zeros would be.
    """

    def __init__(
        self,
        below: int,
        features: int,
        above: int | None,
        kernel_size: int,
        num_cycles: int,
        *,
        pool: bool,
        lateral: bool,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.bottom_up = nn.Conv2d(below, features, kernel_size, padding=padding, bias=False)
        self.lateral = self.top_down = None
        if lateral:
            self.lateral = nn.Conv2d(features, features, kernel_size, padding=padding, bias=False)
        if above is not None:
            # With output_padding 1 exactly twice as large as the layer above.
            self.top_down = nn.ConvTranspose2d(above, features, kernel_size, 2, padding, output_padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(features) for _ in range(num_cycles))

    def drive(self, below: Tensor) -> Tensor:
        """The bottom-up input of the layer below, apart so that an image's is computed once for all cycles."""
        output: Tensor = self.bottom_up(self.pool(below))
        return output

    def forward(self, drive: Tensor, own: Tensor | None, above: Tensor | None, cycle: int) -> Tensor:
        """Activations (batch, features, height, width) of a cycle.

        drive: what `drive` gave, of that shape; own: activations of this layer in the cycle before; above: those of the
        layer above; cycle: from 0, for its BatchNorm.
        """
        total = drive
        if self.lateral is not None and own is not None:
            total = total + self.lateral(own)
        if self.top_down is not None and above is not None:
            total = total + _fill(self.top_down(above), drive)
        return F.relu(self.norms[cycle](total))


def _fill(feedback: Tensor, like: Tensor) -> Tensor:
    """With zeros for the last row and column of an odd size, which the pooling did not pass up either."""
    missing_rows, missing_columns = (like.shape[axis] - feedback.shape[axis] for axis in (-2, -1))
    return F.pad(feedback, (0, missing_columns, 0, missing_rows))


MODELS: dict[str, Callable[..., nn.Module]] = {"blt_b": b, "blt_bl": bl, "blt_bt": bt, "blt_blt": blt}
