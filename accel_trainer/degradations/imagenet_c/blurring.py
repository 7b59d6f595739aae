"""Blur: Gaussian, by frosted glass, out of focus, by motion and by zoom."""

from functools import lru_cache

import numpy as np
import torch
from scipy import fft, ndimage
from torch.nn import functional

from accel_trainer.degradations.degradation import Pixels
from accel_trainer.degradations.imagenet_c.pixel_values import Float32s, blurred, cut
from accel_trainer.degradations.imagenet_c.severity import Constants
from accel_trainer.degradations.keyed_numbers import Integers, KeyedNumbers

# Above it the kernel of a disk is as large as the disk, and is smoothed more widely.
SMALL_DISK = 8


def gaussian_blur(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """By a Gaussian, edges repeated."""
    (sigma,) = constants
    return cut(blurred(image / 255, sigma))


def glass_blur(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Blurred, pixels moved to places nearby, blurred again."""
    sigma, reach, rounds = constants
    before = cut(blurred(image / 255, sigma))
    size = len(image)
    source = np.arange(size * size)
    for number in range(int(rounds)):
        source = source[_one_round(size, int(reach), numbers, f"offsets {number}")]
    moved = before.reshape(-1, 3)[source].reshape(image.shape)
    return cut(blurred(moved / 255, sigma))


def _one_round(size: int, reach: int, numbers: KeyedNumbers, purpose: str) -> Integers:
    """Which pixel each one gets its color from: int64 (size * size,).

    The published loop goes through pixels from the bottom right, and means to swap each with a neighbor; as it is
    written, the pixel gets the neighbor's color and the neighbor stays. A neighbor that the loop was at before has
    another's color by then: such chains are followed to their ends, twice as far each time.
    """
    source = np.arange(size * size)
    inside = np.arange(reach + 1, size - reach + 1)
    if not len(inside):
        return source
    rows, columns = np.meshgrid(inside, inside, indexing="ij")
    offsets = numbers.integers(purpose, -reach, reach, (2, *rows.shape))
    from_row, from_column = rows + offsets[0], columns + offsets[1]
    here, there = (rows * size + columns).ravel(), (from_row * size + from_column).ravel()
    source[here] = there
    is_at_end = np.ones(size * size, np.bool_)
    within = (from_row > reach) & (from_row <= size - reach) & (from_column > reach) & (from_column <= size - reach)
    is_at_end[here] = (there <= here) | ~within.ravel()
    pending = np.flatnonzero(~is_at_end)
    while len(pending):
        via = source[pending]
        source[pending], is_at_end[pending] = source[via], is_at_end[via]
        pending = pending[~is_at_end[pending]]
    return source


def defocus_blur(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """By a disk, edges mirrored. The sum over the disk is made in frequencies."""
    radius, alias_sigma = constants
    margin = max(SMALL_DISK, int(np.ceil(radius)))
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    length = fft.next_fast_len(len(padded), real=True)
    waves = fft.rfft2(padded.transpose(2, 0, 1) / 255, (length, length))
    waves *= _disk_waves(radius, alias_sigma, length)
    size, start = len(image), 2 * margin
    values = fft.irfft2(waves, (length, length))[:, start : start + size, start : start + size]
    return np.ascontiguousarray(cut(values).transpose(1, 2, 0))


@lru_cache(maxsize=16)
def _disk_waves(radius: float, alias_sigma: float, length: int) -> np.ndarray:
    return np.asarray(fft.rfft2(disk(radius, alias_sigma), (length, length)))


def disk(radius: float, alias_sigma: float) -> Float32s:
    """The kernel of a lens out of focus: float32 (2 m + 1, 2 m + 1), its edge smoothed by a Gaussian.

    The smoothing has edges mirrored, so that the sum is above 1 where the disk fills the kernel: published so.
    """
    is_small = radius <= SMALL_DISK
    along = np.arange(-SMALL_DISK, SMALL_DISK + 1) if is_small else np.arange(-radius, radius + 1)
    inside = (along[:, None] ** 2 + along**2 <= radius**2).astype(np.float32)
    inside /= inside.sum()
    taps = np.arange(-1, 2) if is_small else np.arange(-2, 3)
    smooth = np.exp(-(taps**2) / (2 * alias_sigma**2))
    for axis in (0, 1):
        inside = ndimage.correlate1d(inside, smooth / smooth.sum(), axis, mode="mirror")
    return inside


def motion_blur(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """By half a Gaussian along a line, within 45 degrees of horizontal. Rounded: ImageMagick makes 8 bits of it."""
    radius, sigma = constants
    angle = float(numbers.uniform("angle", (), -45, 45))
    return (motion_blurred(image.astype(np.float32), int(radius), sigma, angle) + np.float32(0.5)).astype(np.uint8)


def motion_blurred(values: Float32s, radius: int, sigma: float, degrees: float) -> Float32s:
    """As ImageMagick's `-motion-blur`: the weights of one half of a Gaussian over 2 radius + 1 pixels from each pixel
    on, edges repeated. values: float32 (size, size) or (size, size, channels)."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    angle = np.deg2rad(degrees)
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(angle), np.cos(angle)))
    margin, size = 2 * radius + 1, len(values)
    padded = np.pad(values, ((margin, margin), (margin, margin), (0, 0))[: values.ndim], mode="edge")
    total, part = np.zeros_like(values), np.empty_like(values)
    for weight, row, column in zip(weights, down + margin, right + margin, strict=True):
        total += np.multiply(padded[row : row + size, column : column + size], weight, out=part)
    return total


def zoom_blur(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """The mean of the image and of its center, enlarged more and more."""
    stop, step = constants
    values = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).to(torch.float32).div_(255)
    # Published as a range, whose rounding decides whether its end is in it.
    factors = np.arange(1, stop, step)
    total = values.clone()
    for factor in factors.tolist():
        total += enlarged(values, factor)
    mean = (total / (len(factors) + 1))[0].permute(1, 2, 0).numpy()
    return cut(np.ascontiguousarray(mean))


def enlarged(values: torch.Tensor, factor: float) -> torch.Tensor:
    """The center of images, enlarged to their size, linearly between pixels, corners on corners: (n, channels, size,
    size)."""
    size = values.shape[-1]
    side = int(np.ceil(size / factor))
    start, new = (size - side) // 2, round(side * factor)
    inner = values[..., start : start + side, start : start + side]
    whole = functional.interpolate(inner, (new, new), mode="bilinear", align_corners=True)
    trim = (new - size) // 2
    return whole[..., trim : trim + size, trim : trim + size]
