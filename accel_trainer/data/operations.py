"""The operations of augmentation policies, with the magnitudes and the pixels that torchvision gives them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

# uint8 (3, height, width) and a magnitude to the same image altered.
Change = Callable[[Tensor, float], Tensor]


def _shear_x(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return functional.affine(image, 0.0, [0, 0], 1.0, [_degrees(magnitude), 0.0], mode, center=[0, 0])


def _shear_y(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return functional.affine(image, 0.0, [0, 0], 1.0, [0.0, _degrees(magnitude)], mode, center=[0, 0])


def _degrees(tangent: float) -> float:
    return math.degrees(math.atan(tangent))


def _translate_x(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return functional.affine(image, 0.0, [int(magnitude), 0], 1.0, [0.0, 0.0], mode)


def _translate_y(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return functional.affine(image, 0.0, [0, int(magnitude)], 1.0, [0.0, 0.0], mode)


def _rotate(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    return functional.rotate(image, magnitude, mode)


def _posterise(image: Tensor, magnitude: float) -> Tensor:
    return functional.posterize(image, bits=round(magnitude))


def _solarise(image: Tensor, magnitude: float) -> Tensor:
    return functional.solarize(image, threshold=255 * magnitude)


def _by_factor(adjust: Change, image: Tensor, magnitude: float) -> Tensor:
    return adjust(image, 1.0 + magnitude)


def _always(change: Callable[[Tensor], Tensor], image: Tensor, magnitude: float) -> Tensor:
    return change(image)


def _same(image: Tensor) -> Tensor:
    return image


@dataclass(frozen=True)
class Operation:
    """A change and its magnitudes, evenly spaced from the first bin to the last; without magnitudes both are 0."""

    change: Change
    first: float = 0.0
    last: float = 0.0
    signed: bool = False  # a magnitude may be negative
    side: int | None = None  # magnitudes are fractions of this dimension of the image: -1 is the width, -2 the height

    def magnitude(self, magnitude_bin: int, num_bins: int, size: tuple[int, ...]) -> float:
        """The magnitude of a bin, without a sign, for an image whose last two dimensions are those of `size`."""
        unit = 1 if self.side is None else size[self.side]
        # By the very function of torchvision, in float32: a translation of 15.9999 pixels is one of 15.
        return float(torch.linspace(self.first * unit, self.last * unit, num_bins)[magnitude_bin])


def operations_up_to(
    mode: InterpolationMode,
    *,
    shear: float,
    translation: float,
    relative: bool,
    rotation: float,
    colouring: float,
    bits: tuple[int, int],
) -> dict[str, Operation]:
    """All operations under torchvision's names, up to these magnitudes.

    shear: as the tangent; translation: in pixels, or in widths and heights if `relative`; rotation: in degrees;
    colouring: the largest difference of a factor from 1; bits: that posterising keeps, in the first and last bin.
    """
    signed = partial(Operation, signed=True)
    return {
        "Identity": Operation(partial(_always, _same)),
        "ShearX": signed(partial(_shear_x, mode=mode), last=shear),
        "ShearY": signed(partial(_shear_y, mode=mode), last=shear),
        "TranslateX": signed(partial(_translate_x, mode=mode), last=translation, side=-1 if relative else None),
        "TranslateY": signed(partial(_translate_y, mode=mode), last=translation, side=-2 if relative else None),
        "Rotate": signed(partial(_rotate, mode=mode), last=rotation),
        "Brightness": signed(partial(_by_factor, functional.adjust_brightness), last=colouring),
        "Color": signed(partial(_by_factor, functional.adjust_saturation), last=colouring),
        "Contrast": signed(partial(_by_factor, functional.adjust_contrast), last=colouring),
        "Sharpness": signed(partial(_by_factor, functional.adjust_sharpness), last=colouring),
        "Posterize": Operation(_posterise, first=bits[0], last=bits[1]),
        "Solarize": Operation(_solarise, first=1.0, last=0.0),
        "AutoContrast": Operation(partial(_always, functional.autocontrast)),
        "Equalize": Operation(partial(_always, functional.equalize)),
    }
