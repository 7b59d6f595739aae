"""Color jitter and grayscale, with the formulas of torchvision's float images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.data.augment.effect import SimpleEffect, change_rows, column
from accel_trainer.data.rng.draws import Draws, Numbers, Parameters, between

# ITU-R 601-2 luma, as torchvision rounds it.
LUMA = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class JitterParameters(Parameters):
    """order: which of the four adjustments comes first, second ..., int64 (rows, 4), -1 where there is none at all;
    factors: float64 (rows, 4), of brightness, contrast and saturation (1 is no change), and the turn of hue (0).
    """

    order: npt.NDArray[np.int64]
    factors: Numbers


class ColorJitter(SimpleEffect):
    """Brightness, contrast, saturation and hue changed by random factors in a random order: torchvision's
    ColorJitter, in `probability` of the images. The defaults are those of SimCLR (Chen et al. 2020).
    """

    def __init__(
        self,
        brightness: float = 0.8,
        contrast: float = 0.8,
        saturation: float = 0.8,
        hue: float = 0.2,
        probability: float = 0.8,
    ) -> None:
        strength = np.array([brightness, contrast, saturation, hue])
        center = np.array([1.0, 1.0, 1.0, 0.0])
        self.low = np.append(np.maximum(0.0, center[:3] - strength[:3]), -hue)
        self.high = center + strength
        self.probability = probability

    def draw(self, draws: Draws) -> JitterParameters:
        """Factors, and an order of the four adjustments, for each row."""
        numbers = draws.uniforms("colour jitter", 9)
        order = np.argsort(numbers[:, 1:5], axis=1)
        order[numbers[:, 0] >= self.probability] = -1
        return JitterParameters(order, between(self.low, self.high, numbers[:, 5:]))

    def apply(self, images: Tensor, fetched: JitterParameters) -> Tensor:
        """The adjustments of each row in its order; values are clamped to 0..1 after each."""
        for turn in range(4):
            for which, adjust in enumerate(_ADJUSTMENTS):
                rows = np.flatnonzero(fetched.order[:, turn] == which)
                images = change_rows(images, rows, adjust, fetched.factors[:, which])
        return images


@dataclass(frozen=True)
class GrayscaleParameters(Parameters):
    """is_gray: bool (rows,)."""

    is_gray: npt.NDArray[np.bool_]


class Grayscale(SimpleEffect):
    """Gray, in three equal channels, in `probability` of the images: torchvision's RandomGrayscale."""

    def __init__(self, probability: float = 0.2) -> None:
        self.probability = probability

    def draw(self, draws: Draws) -> GrayscaleParameters:
        """Which rows become gray."""
        return GrayscaleParameters(draws.uniforms("grey", 1)[:, 0] < self.probability)

    def apply(self, images: Tensor, fetched: GrayscaleParameters) -> Tensor:
        """The luma of those rows in all three channels."""
        return change_rows(images, np.flatnonzero(fetched.is_gray), _gray)


def luma(images: Tensor) -> Tensor:
    """Brightness as the eye weighs it: (rows, 3, height, width) to (rows, 1, height, width)."""
    red, green, blue = images.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(1)


def _gray(images: Tensor) -> Tensor:
    return luma(images).expand_as(images).contiguous()


# Each overwrites the images, and has a factor for each of them.


def _brightness(images: Tensor, factors: Numbers) -> Tensor:
    return images.mul_(column(factors, images)).clamp_(0, 1)


def _contrast(images: Tensor, factors: Numbers) -> Tensor:
    factor = column(factors, images)
    mean = luma(images).mean((1, 2, 3), keepdim=True)
    return images.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def _saturation(images: Tensor, factors: Numbers) -> Tensor:
    factor = column(factors, images)
    gray = luma(images)
    return images.mul_(factor).add_(gray.mul_(1 - factor)).clamp_(0, 1)


def _hue(images: Tensor, turns: Numbers) -> Tensor:
    """Turn the hue by a fraction of the color circle, in hue, saturation and value (Smith 1978), as torchvision."""
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    safe = torch.where(chroma == 0, 1.0, chroma)
    # In sixths of the circle from red, by which channel is the largest.
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths.add_(column(6 * turns, images)[:, 0])
    for channel, offset in enumerate((5, 3, 1)):
        # How far each channel is below the largest goes up, stays and comes down with the hue.
        position = (sixths + offset).remainder_(6)
        below = torch.minimum(position, 4 - position).clamp_(0, 1).mul_(chroma)
        images[:, channel] = value - below
    return images


_ADJUSTMENTS: tuple[Callable[[Tensor, Numbers], Tensor], ...] = (_brightness, _contrast, _saturation, _hue)
