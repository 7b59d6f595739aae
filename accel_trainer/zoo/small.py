"""A small convolutional network for tiny images, such as digits of 8x8 or CIFAR's of 32x32."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from accel_trainer.zoo.blocks import Decoder, Head, check_counts, check_kernel_sizes, layer_names


def small_cnn(
    *,
    num_classes: int = 1000,
    features: Sequence[int] = (32, 64, 128),
    kernel_sizes: Sequence[int] = (3, 3, 3),
    head_depth: int = 1,
    head_units: int | None = None,
    num_heads: int = 1,
) -> nn.Module:
    """A small network for tiny images: convolutions with BatchNorm and ReLU; all but the first halve the resolution.

    94,762 parameters with 10 classes, by default otherwise. Layers are named layer1, layer2, ..., decoder.
    Takes images (batch, 3, height, width) of any size, gives logits (batch, num_classes).

    num_classes (1000): units of the output layer.
    features ([32, 64, 128]): channels of each layer; as many layers as numbers.
    kernel_sizes ([3, 3, 3]): of the layers' convolutions; odd.
    head_depth (1): linear layers of the decoder, with ReLU between them.
    head_units (null: as many as the last layer has channels): units of the decoder's hidden layers.
    num_heads (1): parallel decoders; with more than one, (batch, 1, num_heads, num_classes) is given.
    """
    return SmallCNN(features, kernel_sizes, Head(num_classes, head_depth, head_units, num_heads))


class SmallCNN(nn.Module):
    """See `small_cnn`. Convolutions start as in He et al. 2015, with sd sqrt(2 / fan-in)."""

    def __init__(self, features: Sequence[int], kernel_sizes: Sequence[int], head: Head) -> None:
        super().__init__()
        self.layer_names = layer_names(features)
        channels = [3, *check_counts("features", features, areas=self.layer_names)]
        kernels = check_kernel_sizes(kernel_sizes, areas=self.layer_names)
        for index, name in enumerate(self.layer_names):
            stride = 1 if index == 0 else 2
            self.add_module(name, _layer(channels[index], channels[index + 1], kernels[index], stride))
        self.decoder = Decoder(channels[-1], head)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 3, height, width) to logits."""
        activations = images
        for name in self.layer_names:
            activations = self.get_submodule(name)(activations)
        output: Tensor = self.decoder(activations)
        return output


def _layer(inputs: int, outputs: int, kernel_size: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


MODELS: dict[str, Callable[..., nn.Module]] = {"small_cnn": small_cnn}
