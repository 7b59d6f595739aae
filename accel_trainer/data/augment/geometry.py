"""Geometry on uint8 pixels: what is drawn for an image, and how that is applied to it.

A draw is a few numbers in [0, 1) for each image (see accel_trainer.data.rng.draws); an application is a pure
function of an image and its numbers. No generator is involved, so threads do not matter.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.data.augment.resizing import Filter, resize, short_side_of
from accel_trainer.data.native import calls
from accel_trainer.data.native.calls import Cuts
from accel_trainer.data.native.images import Images
from accel_trainer.data.native.library import kernel
from accel_trainer.data.rng.draws import Draws, Integers, Numbers, between

Channels = tuple[float, float, float]
"""A number for red, green and blue."""


@dataclass(frozen=True)
class Statistics:
    """What is subtracted of pixels in 0..1, and what they are then divided by."""

    mean: Channels
    std: Channels


# ImageNet's, as torchvision's models expect them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
IMAGENET = Statistics(MEAN, STD)

CROP_SCALE = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
WEAK_CROP_SCALE = (0.8, 1.0)
CROP_TRIES = 10
# How many numbers a crop takes.
CROP_NUMBERS = 2 * CROP_TRIES + 2
# Below it, a number has the image flipped.
FLIPPED = 0.5
# As torchvision's presets: a crop of 224 from a shorter side of 256.
EVAL_CROP = 0.875
# Of longer images the middle is cut out before they are enlarged: one of 60,000 x 1 pixels would take 12 GB.
MAX_RATIO = 32


class Crop(Protocol):
    """How images become squares of one size. filter: with which they are resized."""

    image_size: int
    filter: Filter

    def draw(self, draws: Draws) -> Numbers:
        """The random numbers of each row, float64 of shape (rows, some count)."""
        ...

    def cuts(self, images: Images, numbers: Numbers) -> Cuts:
        """What the rows of images are, of which each image has as many, one after the other."""
        ...


class CenterCrop:
    """Resize so that the crop is a share of the shorter side, then crop the center: the transform of validation.

    Of an image that is more than MAX_RATIO times as long as wide only the middle is resized, by the same factor but for
    rounding. Of all others the same pixels as torchvision's v2.Resize(int(image_size / share), antialias=True) and
    v2.CenterCrop. squash: both sides become as long as the shorter one, of whole images of any shape.
    """

    def __init__(
        self, image_size: int, share: float = EVAL_CROP, by: Filter = Filter.BILINEAR, *, squash: bool = False
    ) -> None:
        self.image_size, self.filter, self.squash = image_size, by, squash
        self.short_side = short_side_of(image_size, share)

    def draw(self, draws: Draws) -> Numbers:
        """No numbers: float64 (rows, 0)."""
        return np.empty((len(draws), 0))

    def cuts(self, images: Images, numbers: Numbers) -> Cuts:
        """The middle of each image, whatever the numbers."""
        sides = images.table[:, 4:]
        cuts = np.zeros((len(images), calls.CUT_NUMBERS), np.int64)
        if self.squash:
            cuts[:, 2:4], cuts[:, 4:6] = sides, self.short_side
        else:
            cuts[:, :4] = middles(sides)
            cuts[:, 4:6] = with_short_sides(cuts[:, 2:4], self.short_side)
        cuts[:, 6:8] = np.rint((cuts[:, 4:6] - self.image_size) / 2)
        return np.repeat(cuts, len(numbers) // max(1, len(images)), axis=0)

    def crop(self, image: Tensor) -> Tensor:
        """uint8 (3, height, width) to uint8 (3, image_size, image_size)."""
        images, out = Images.of([image]), torch.empty(1, 3, self.image_size, self.image_size, dtype=torch.uint8)
        cut(images, self.cuts(images, np.empty((1, 0))), out, by=self.filter)
        return out[0]


class RandomResizedCrop:
    """Inception-style crop and horizontal flip, with torchvision's distribution and ranges."""

    filter = Filter.BILINEAR

    def __init__(self, image_size: int, scale: tuple[float, float] = CROP_SCALE) -> None:
        self.image_size = image_size
        self.scale = scale
        self._rules = crop_rules(scale, image_size)

    def draw(self, draws: Draws) -> Numbers:
        """The numbers of `crop_box`, and one for the flip: float64 (rows, CROP_NUMBERS + 1)."""
        return draws.uniforms("crop and flip", CROP_NUMBERS + 1)

    def cuts(self, images: Images, numbers: Numbers) -> Cuts:
        """A box that is resized to a square, and flipped where the last number is below FLIPPED."""
        if (compiled := kernel()) is not None:
            return calls.random_crops(compiled, images, numbers, self._rules)
        views = len(numbers) // max(1, len(images))
        sizes = itertools.chain.from_iterable(itertools.repeat(size, views) for size in images.sizes)
        square = (self.image_size, self.image_size, 0, 0)
        each = [
            (*crop_box(height, width, drawn, self.scale), *square, drawn[-1] < FLIPPED)
            for (height, width), drawn in zip(sizes, numbers.tolist(), strict=True)
        ]
        return np.array(each, np.int64).reshape(-1, calls.CUT_NUMBERS)


def flipped_rows(draws: Draws) -> npt.NDArray[np.bool_]:
    """Which rows `RandomResizedCrop` flips: bool (rows,)."""
    return draws.uniforms("crop and flip", CROP_NUMBERS + 1)[:, -1] < FLIPPED


def crop_box(
    height: int, width: int, numbers: Sequence[float] | Numbers, scale: tuple[float, float] = CROP_SCALE
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop, as torchvision's RandomResizedCrop.get_params.

    The first CROP_TRIES pairs of numbers are areas and aspect ratios to try, the last two are the position.
    """
    low, high = (math.log(ratio) for ratio in CROP_RATIO)
    for attempt in range(CROP_TRIES):
        area = height * width * between(*scale, numbers[2 * attempt])
        ratio = math.exp(between(low, high, numbers[2 * attempt + 1]))
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


def crop_boxes(sizes: npt.NDArray[np.int64], numbers: Numbers, scale: tuple[float, float]) -> npt.NDArray[np.int64]:
    """`crop_box` of images of these heights and widths, int64 (n, 2): int64 (n, 4). numbers: float64
    (n, CROP_NUMBERS)."""
    if (compiled := kernel()) is None:
        each = zip(sizes.tolist(), numbers.tolist(), strict=True)
        boxes = [crop_box(height, width, drawn, scale) for (height, width), drawn in each]
        return np.array(boxes, np.int64).reshape(-1, 4)
    table = np.zeros((len(sizes), 6), np.int64)
    table[:, 4:] = sizes
    with_flip = np.hstack([numbers, np.ones((len(numbers), 1))])
    return calls.random_crops(compiled, Images(table, None), with_flip, crop_rules(scale, 1))[:, :4]


def crop_rules(scale: tuple[float, float], image_size: int) -> calls.CropRules:
    """Those of `crop_box`, with a flip, for the kernel."""
    log_ratios = [math.log(ratio) for ratio in CROP_RATIO]
    return calls.CropRules(*scale, *log_ratios, *CROP_RATIO, FLIPPED, CROP_TRIES, image_size)


def middles(sides: Integers) -> Integers:
    """(top, left, height, width) of whole images of these heights and widths, int64 (n, 2): int64 (n, 4). Of one that
    is more than MAX_RATIO times as long as wide, of the part around its center that is three times as long as wide, or
    one pixel more, so that the center is the same."""
    short, long = sides.min(axis=1, keepdims=True), sides.max(axis=1, keepdims=True)
    length = np.where(long <= MAX_RATIO * short, long, 3 * short + (long - 3 * short) % 2)
    within = np.minimum(sides, length)
    return np.hstack([(sides - within) // 2, within])


def with_short_sides(sides: Integers, short_side: int) -> Integers:
    """`with_short_side` of many: int64 (n, 2)."""
    short, long = sides.min(axis=1, keepdims=True), sides.max(axis=1, keepdims=True)
    resized = (short_side * long / short).astype(np.int64)
    return np.where(sides == short, short_side, resized)


def with_short_side(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) of the same shape with that shorter side, as torchvision's Resize rounds the other one."""
    long_side = int(short_side * max(height, width) / min(height, width))
    return (short_side, long_side) if height <= width else (long_side, short_side)


def cut(
    images: Images,
    cuts: Cuts,
    out: Tensor,
    statistics: Statistics | None = None,
    by: Filter = Filter.BILINEAR,
) -> None:
    """Write the rows of images, of which each image has as many, one after the other.

    out: contiguous (rows, 3, size, size), uint8; or float32, `normalized` by the statistics.
    """
    if by is Filter.BILINEAR and (compiled := kernel()) is not None:
        calls.cut(compiled, images, cuts, out, None if statistics is None else byte_scale_and_shift(statistics))
        return
    views = len(cuts) // max(1, len(images))
    for position, image in enumerate(images):
        for row in range(position * views, (position + 1) * views):
            pixels = _cut_one(image, cuts[row].tolist(), out.shape[-1], by)
            if statistics is None:
                out[row].copy_(pixels)
            else:
                normalized(pixels, out[row], statistics)


def _cut_one(image: Tensor, numbers: list[int], size: int, by: Filter) -> Tensor:
    top, left, height, width, *resized, window_top, window_left, is_flipped = numbers
    # Cut by numpy: torch gives the interpreter's lock to another thread for every slice, and waits to get it back.
    box = torch.from_numpy(image.numpy()[:, top : top + height, left : left + width])
    pixels = resize(box, (resized[0], resized[1]), by)
    if resized != [size, size]:
        pixels = pixels[:, window_top : window_top + size, window_left : window_left + size]
    return pixels.flip(-1) if is_flipped else pixels


def to_uint8(floats: Tensor) -> Tensor:
    """Floats from 0 to below 256 as uint8, cut off as `Tensor.to` does: by way of 16 bits, in a third of the time."""
    return floats.to(torch.int16).to(torch.uint8)


@cache
def _on_device(statistics: Statistics, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float32 of shape (3, 1, 1)."""
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (statistics.mean, statistics.std))
    return mean, std


@cache
def _byte_scale_and_shift(statistics: Statistics, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and shift that normalize pixels from 0 to 255, float32 of shape (3, 1, 1)."""
    numbers = byte_scale_and_shift(statistics)
    scale, shift = (torch.tensor(values, device=device).view(3, 1, 1) for values in (numbers[:3], numbers[3:]))
    return scale, shift


@cache
def byte_scale_and_shift(statistics: Statistics) -> tuple[float, ...]:
    """By what `normalized` multiplies the bytes of each channel, and what it then adds: 6 numbers."""
    scales = [1 / (255 * std) for std in statistics.std]
    shifts = [-mean / std for mean, std in zip(statistics.mean, statistics.std, strict=True)]
    return (*scales, *shifts)


def normalized(pixels: Tensor, out: Tensor | None = None, statistics: Statistics = IMAGENET) -> Tensor:
    """What `normalize` makes of uint8 (..., 3, height, width) / 255, to 1e-6, in fewer passes over them."""
    scale, shift = _byte_scale_and_shift(statistics, pixels.device)
    floats = pixels.to(torch.float32) if out is None else out.copy_(pixels)
    return floats.mul_(scale).add_(shift)


def normalize_bytes(pixels: Tensor, out: Tensor, statistics: Statistics = IMAGENET) -> None:
    """Write `normalized` pixels: uint8 (rows, 3, height, width) to float32 of that shape, both contiguous."""
    if (compiled := kernel()) is not None:
        calls.normalize(compiled, pixels, out, byte_scale_and_shift(statistics))
    else:
        normalized(pixels, out, statistics)


def normalize(images: Tensor, statistics: Statistics = IMAGENET) -> Tensor:
    """float32 (..., 3, height, width) in 0..1, less the mean and divided by the standard deviation, in place."""
    mean, std = _on_device(statistics, images.device)
    return images.sub_(mean).div_(std)


def pixels_of(normalized_images: Tensor, statistics: Statistics = IMAGENET) -> Tensor:
    """The pixels before `normalize`, rounded: float32 (..., 3, height, width) to uint8 of the same shape."""
    mean, std = _on_device(statistics, normalized_images.device)
    return to_uint8((normalized_images * std + mean).mul_(255).round_().clamp_(0, 255))
