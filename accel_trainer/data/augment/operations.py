"""The operations of augmentation policies on uint8 images, with torchvision's magnitudes and pixels.

Those that torchvision does by way of floats, grids and convolutions are done by tables and sums of whole numbers here,
where that gives the same bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from accel_trainer.data.augment.geometry import to_uint8
from accel_trainer.data.native import pixels
from accel_trainer.data.rng.draws import Integers

# uint8 (3, height, width) and a magnitude to the same image altered.
Change = Callable[[Tensor, float], Tensor]


def _shear_x(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    changed: Tensor = functional.affine(image, 0.0, [0, 0], 1.0, [_degrees(magnitude), 0.0], mode, center=[0, 0])
    return changed


def _shear_y(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    changed: Tensor = functional.affine(image, 0.0, [0, 0], 1.0, [0.0, _degrees(magnitude)], mode, center=[0, 0])
    return changed


def _degrees(tangent: float) -> float:
    return math.degrees(math.atan(tangent))


def _translate_x(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    changed: Tensor = functional.affine(image, 0.0, [int(magnitude), 0], 1.0, [0.0, 0.0], mode)
    return changed


def _translate_y(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    changed: Tensor = functional.affine(image, 0.0, [0, int(magnitude)], 1.0, [0.0, 0.0], mode)
    return changed


def _rotate(image: Tensor, magnitude: float, mode: InterpolationMode) -> Tensor:
    changed: Tensor = functional.rotate(image, magnitude, mode)
    return changed


def _posterize(image: Tensor, magnitude: float) -> Tensor:
    changed: Tensor = functional.posterize(image, bits=round(magnitude))
    return changed


def _solarize(image: Tensor, magnitude: float) -> Tensor:
    """255 - x from a threshold on, which is compared as a float32."""
    is_above = image >= math.ceil(np.float32(255 * magnitude))
    return is_above.view(torch.uint8).neg_().bitwise_xor_(image)


def _sharpness(image: Tensor, magnitude: float) -> Tensor:
    """Away from a blur, or towards it: the mean of a pixel, which counts five times, and its eight neighbors, rounded.

    Thirteenths are never halfway between two whole numbers, so they are rounded alike however they are added up.
    """
    if min(image.shape[-2:]) <= 2:
        return image
    pixels = image.to(torch.float32)
    across = (pixels[..., :-2] + pixels[..., 1:-1]).add_(pixels[..., 2:])
    blurred = (across[..., :-2, :] + across[..., 1:-1, :]).add_(across[..., 2:, :])
    inner = pixels[..., 1:-1, 1:-1]
    blurred.add_(inner, alpha=4).mul_(1 / 13).round_()
    inner.add_(blurred.sub_(inner), alpha=1.0 - (1.0 + magnitude))
    return to_uint8(pixels.clamp_(0, 255))


def _by_factor(adjust: Change, image: Tensor, magnitude: float) -> Tensor:
    return adjust(image, 1.0 + magnitude)


# What moves pixels, and nothing else.
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
# All that RandAugment needs for one size of images; of 224 pixels they take 9 MB.
_MOVES = 2 * len(GEOMETRIC)
# Whole numbers up to here are floats.
MAX_NUMBERED = 2**24


def by_sources(move: Change, image: Tensor, magnitude: float) -> Tensor:
    """What `move` makes of an image, by nearest neighbors, with the pixels looked up where it has them from."""
    height, width = image.shape[-2:]
    if height * width >= MAX_NUMBERED:
        return move(image, magnitude)
    source, is_inside = _sources(move, magnitude, height, width)
    moved = image.reshape(len(image), -1).numpy().take(source, axis=1)
    moved *= is_inside
    return torch.from_numpy(moved).view(image.shape)


@lru_cache(maxsize=2 * _MOVES)
def _sources(move: Change, magnitude: float, height: int, width: int) -> tuple[Integers, npt.NDArray[np.uint8]]:
    """From where each pixel comes, int64 (height * width,), and whether that is inside of the image."""
    moved = numbers_moved(move, magnitude, height, width)
    return np.maximum(moved - 1, 0).astype(np.int64), (moved > 0).astype(np.uint8)


def numbers_moved(move: Change, magnitude: float, height: int, width: int) -> npt.NDArray[np.int32]:
    """What becomes of an image of the numbers of its pixels, from 1, by nearest neighbors: int32 (height * width,), 0
    where a pixel comes from outside."""
    numbers = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, height, width)
    return move(numbers, magnitude).to(torch.int32).flatten().numpy()


def _equalize(image: Tensor) -> Tensor:
    """As torchvision's, which is Pillow's, by a table of 256 levels for each channel."""
    if image.numel() == 0:
        return image
    equalized = np.empty(image.shape, np.uint8)
    for channel, levels in zip(image.reshape(len(image), -1), equalized.reshape(len(image), -1), strict=True):
        np.take(_equalizing_table(torch.bincount(channel, minlength=256).numpy()), channel.numpy(), out=levels)
    return torch.from_numpy(equalized)


def _equalizing_table(counts: Integers) -> npt.NDArray[np.uint8]:
    """uint8 (256,). counts: of the pixels of each level, int64 (256,)."""
    up_to = counts.cumsum()
    step = (up_to[-1] - counts[counts.nonzero()[0][-1]]) // 255
    if step == 0:
        return np.arange(256, dtype=np.uint8)
    table = np.zeros(256, np.uint8)
    table[1:] = np.minimum((up_to[:-1] + step // 2) // step, 255)
    return table


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
    kind: int | None = None  # what the compiled kernel calls it (accel_trainer.data.native.pixels); None: nothing
    moves: Change | None = None  # what moves whole pixels, and nothing else

    def magnitude(self, magnitude_bin: int, num_bins: int, size: tuple[int, ...]) -> float:
        """The magnitude of a bin, without a sign, for an image whose last two dimensions are those of `size`."""
        unit = 1 if self.side is None else size[self.side]
        return _spaced(self.first * unit, self.last * unit, num_bins, magnitude_bin)


@lru_cache(maxsize=4096)
def _spaced(first: float, last: float, num_bins: int, magnitude_bin: int) -> float:
    """By the very function of torchvision, in float32: a translation of 15.9999 pixels is one of 15."""
    return float(torch.linspace(first, last, num_bins)[magnitude_bin])


def operations_up_to(
    mode: InterpolationMode,
    *,
    shear: float,
    translation: float,
    relative: bool,
    rotation: float,
    color_change: float,
    bits: tuple[int, int],
) -> dict[str, Operation]:
    """All operations under torchvision's names, up to these magnitudes.

    shear: as the tangent; translation: in pixels, or in widths and heights if `relative`; rotation: in degrees;
    color_change: the largest difference of a factor from 1; bits: that `Posterize` keeps, in the first and last bin.
    """
    signed = partial(Operation, signed=True)

    def moving(move: Callable[..., Tensor], last: float, side: int | None = None) -> Operation:
        change, is_nearest = partial(move, mode=mode), mode is InterpolationMode.NEAREST
        kind, moves = (pixels.MOVED, change) if is_nearest else (None, None)
        return signed(change, last=last, side=side, kind=kind, moves=moves)

    def by_factor(adjust: Change, kind: int) -> Operation:
        return signed(partial(_by_factor, adjust), last=color_change, kind=kind)

    return {
        "Identity": Operation(partial(_always, _same), kind=pixels.SAME),
        "ShearX": moving(_shear_x, shear),
        "ShearY": moving(_shear_y, shear),
        "TranslateX": moving(_translate_x, translation, -1 if relative else None),
        "TranslateY": moving(_translate_y, translation, -2 if relative else None),
        "Rotate": moving(_rotate, rotation),
        "Brightness": by_factor(functional.adjust_brightness, pixels.BY_LEVEL),
        "Color": by_factor(functional.adjust_saturation, pixels.SATURATION),
        "Contrast": by_factor(functional.adjust_contrast, pixels.CONTRAST),
        "Sharpness": signed(_sharpness, last=color_change, kind=pixels.SHARPNESS),
        "Posterize": Operation(_posterize, first=bits[0], last=bits[1], kind=pixels.BY_LEVEL),
        "Solarize": Operation(_solarize, first=1.0, last=0.0, kind=pixels.BY_LEVEL),
        "AutoContrast": Operation(partial(_always, functional.autocontrast), kind=pixels.AUTO_CONTRAST),
        "Equalize": Operation(partial(_always, _equalize), kind=pixels.EQUALIZE),
    }
