"""Geometry on uint8 pixels: what is drawn for an image, and how that is applied to it.

A draw is a few numbers in [0, 1) for each image (see accel_trainer.randomness); an application is a pure
function of an image and its numbers. No generator is involved, so threads do not matter.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from accel_trainer import randomness

# ImageNet's, as torchvision's models expect them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

CROP_SCALE = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10
# As torchvision's presets: 256 for a crop of 224.
RESIZE_RATIO = 256 / 224

Numbers = npt.NDArray[np.float64]


class Transform(Protocol):
    """How images become inputs of a fixed size."""

    def draw(self, epoch: int, indices: npt.NDArray[np.int64]) -> Numbers:
        """The random numbers of each image, float64 of shape (len(indices), some count)."""
        ...

    def apply(self, image: Tensor, numbers: Numbers) -> Tensor:
        """uint8 (3, height, width) to uint8 (3, image_size, image_size)."""
        ...


class CentreCrop:
    """Resize so that the crop is 7/8 of the shorter side, then crop the centre: the transform of validation.

    The same pixels as torchvision's v2.Resize(int(image_size * 256 / 224), antialias=True) and v2.CenterCrop.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.short_side = int(image_size * RESIZE_RATIO)

    def draw(self, epoch: int, indices: npt.NDArray[np.int64]) -> Numbers:
        return np.empty((len(indices), 0))

    def apply(self, image: Tensor, numbers: Numbers) -> Tensor:
        height, width = image.shape[-2:]
        short, long = min(height, width), max(height, width)
        long_side = int(self.short_side * long / short)
        size = (self.short_side, long_side) if height <= width else (long_side, self.short_side)
        resized = resize(image, size)
        top, left = (round((side - self.image_size) / 2) for side in size)
        return resized[:, top : top + self.image_size, left : left + self.image_size]


class RandomResizedCrop:
    """Inception-style crop and horizontal flip, with torchvision's distribution and ranges."""

    def __init__(self, image_size: int, seed: int, scale: tuple[float, float] = CROP_SCALE) -> None:
        self.image_size = image_size
        self.seed = seed
        self.scale = scale

    def draw(self, epoch: int, indices: npt.NDArray[np.int64]) -> Numbers:
        key = randomness.key(self.seed, "crop and flip", epoch)
        return randomness.uniforms(key, indices, 2 * CROP_TRIES + 3)

    def apply(self, image: Tensor, numbers: Numbers) -> Tensor:
        height, width = image.shape[-2:]
        top, left, h, w = crop_box(height, width, numbers[:-1], self.scale)
        cropped = resize(image[:, top : top + h, left : left + w], (self.image_size, self.image_size))
        return cropped.flip(-1) if numbers[-1] < 0.5 else cropped


def crop_box(
    height: int, width: int, numbers: Sequence[float] | Numbers, scale: tuple[float, float] = CROP_SCALE
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop, as torchvision's RandomResizedCrop.get_params.

    The first CROP_TRIES pairs of numbers are areas and aspect ratios to try, the last two are the position.
    """
    log_ratio = [math.log(ratio) for ratio in CROP_RATIO]
    for attempt in range(CROP_TRIES):
        area = height * width * _between(scale[0], scale[1], numbers[2 * attempt])
        ratio = math.exp(_between(log_ratio[0], log_ratio[1], numbers[2 * attempt + 1]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(numbers[2 * CROP_TRIES] * (height - h + 1))
            left = int(numbers[2 * CROP_TRIES + 1] * (width - w + 1))
            return top, left, h, w
    ratio = width / height
    h, w = height, width
    if ratio < CROP_RATIO[0]:
        h = round(w / CROP_RATIO[0])
    elif ratio > CROP_RATIO[1]:
        w = round(h * CROP_RATIO[1])
    return (height - h) // 2, (width - w) // 2, h, w


def _between(low: float, high: float, number: float) -> float:
    return low + (high - low) * number


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bilinear resize of uint8 (3, height, width), in torch's native uint8 kernel."""
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


class Normalise:
    """uint8 (batch, 3, height, width), from anywhere, to floats of mean 0 and sd 1 over ImageNet on a device."""

    def __init__(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.mean = torch.tensor(MEAN, dtype=dtype, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(STD, dtype=dtype, device=device).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        pixels = images.to(self.mean.device, non_blocking=True).to(self.mean.dtype)
        return pixels.div_(255).sub_(self.mean).div_(self.std)


def training_transform(transform_type: str, image_size: int, seed: int) -> Transform:
    """The transform of a transform_type that the job file has been checked for."""
    match transform_type:
        case "none":
            return CentreCrop(image_size)
        case "default":
            return RandomResizedCrop(image_size, seed)
        case _:
            raise ValueError(f"no transform {transform_type!r}")
