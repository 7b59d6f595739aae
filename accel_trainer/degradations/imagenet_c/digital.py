"""Brightness, contrast, saturation, JPEG, pixels made coarse, and elastic deformation."""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import fft

from accel_trainer.degradations.degradation import Pixels
from accel_trainer.degradations.imagenet_c.pixel_values import Float32s, cut
from accel_trainer.degradations.imagenet_c.severity import Constants
from accel_trainer.degradations.keyed_numbers import Floats, Integers, KeyedNumbers


def brightness(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Something is added to V of HSV; hue and saturation stay."""
    (offset,) = constants
    values, largest = image / 255, _over_channels(np.maximum, image)
    # Black has no saturation: it becomes gray.
    factors = np.minimum(largest + offset, 1) / np.where(largest == 0, 1, largest)
    return cut(np.where(largest == 0, min(offset, 1), values * factors))


def saturate(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """S of HSV times one number plus another. Gray has the hue 0, which is red."""
    gain, offset = constants
    values, largest = image / 255, _over_channels(np.maximum, image)
    spread = largest - _over_channels(np.minimum, image)
    has_hue = spread > 0
    saturation = spread / np.where(largest == 0, 1, largest)
    wanted = np.clip(saturation * gain + offset, 0, 1)
    colored = largest - (largest - values) * (wanted / np.where(has_hue, saturation, 1))
    red = np.concatenate([largest, np.repeat(largest * (1 - wanted), 2, axis=2)], axis=2)
    return cut(np.where(has_hue, colored, red))


def _over_channels(reduce: np.ufunc, image: Pixels) -> Floats:
    """From 0 to 1: float64 (size, size, 1). Much faster than along the last axis of three."""
    red, green, blue = (image[..., channel] for channel in range(3))
    return np.asarray(reduce(reduce(red, green), blue)[..., None] / 255)


def contrast(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """About the mean of each channel."""
    (gain,) = constants
    values = image / 255
    means = values.mean(axis=(0, 1), keepdims=True)
    return cut((values - means) * gain + means)


def jpeg_compression(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Compressed and decoded."""
    (quality,) = constants
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=int(quality))
    return np.array(Image.open(encoded))


def pixelate(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Made smaller and large again, each pixel the mean of a box."""
    (scale,) = constants
    size = len(image)
    small = max(1, int(size * scale))
    shrunk = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
    return np.array(shrunk.resize((size, size), Image.Resampling.BOX))


def elastic_transform(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Three points of the image moved, and with them all others; then each pixel moved as its neighbors are."""
    alpha, sigma, shift = constants
    size = len(image)
    y, x = np.meshgrid(np.arange(size, dtype=np.float64), np.arange(size, dtype=np.float64), indexing="ij")
    back = _back_to_source(size, numbers.uniform("points", (3, 2), -shift, shift))
    source_x, source_y = (row[0] * x + row[1] * y + row[2] for row in back)
    warped = _sampled(image.astype(np.float32), source_y, source_x, _mirrored)
    down, right = (
        alpha * _smooth(numbers.uniform(f"move {axis}", (size, size), -1, 1), sigma) for axis in ("down", "right")
    )
    return cut(_sampled(warped, y + down, x + right, _reflected) / 255)


def _back_to_source(size: int, shifts: Floats) -> Floats:
    """The affine map that takes three points, moved by `shifts` (x, y), back to where they were: float64 (2, 3)."""
    center, third = size // 2, size // 3
    points = center + third * np.array([[1, 1], [1, -1], [-1, -1]], np.float64)
    moved = np.concatenate([points + shifts, np.ones((3, 1))], axis=1)
    return np.asarray(np.linalg.solve(moved, points).T)


def _smooth(field: Floats, sigma: float) -> Floats:
    """By a Gaussian of three standard deviations on both sides, edges reflected, which is a product of cosine
    transforms: the kernel may be wider than the image."""
    if sigma == 0:
        return field
    waves = _gaussian_waves(len(field), sigma)
    return np.asarray(fft.idctn(fft.dctn(field) * waves[:, None] * waves))


@lru_cache(maxsize=16)
def _gaussian_waves(size: int, sigma: float) -> Floats:
    """What is left of each cosine wave: float64 (size,)."""
    taps = np.arange(int(3 * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (taps / sigma) ** 2)
    weights[1:] *= 2
    # Not a product of matrices, whose last bits may depend on the number of threads.
    return np.asarray((np.cos(np.pi / size * np.arange(size)[:, None] * taps) * (weights / weights.sum())).sum(axis=1))


def _sampled(image: Float32s, y: Floats, x: Floats, inside: Callable[[Integers, int], Integers]) -> Float32s:
    """An image at places between its pixels, linearly: float32 (size, size, 3). inside: rows or columns of the image
    for those beyond it."""
    size = len(image)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, right = ((at - start).astype(np.float32) for at, start in ((y, top), (x, left)))
    rows = [inside(top + step, size) * size for step in (0, 1)]
    columns = [inside(left + step, size) for step in (0, 1)]
    sampled = np.zeros_like(image)
    # One channel after another: NumPy is slow along an axis of three.
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).reshape(3, -1)
    for row, part_down in zip(rows, (1 - down, down), strict=True):
        for column, part_right in zip(columns, (1 - right, right), strict=True):
            place, part = row + column, part_down * part_right
            for channel in range(3):
                sampled[..., channel] += planes[channel].take(place) * part
    return sampled


def _mirrored(index: Integers, size: int) -> Integers:
    """Beyond an edge as before it; the pixel at the edge is there once: 2 1 | 0 1 2."""
    period = max(1, 2 * size - 2)
    index = index % period
    return np.minimum(index, period - index)


def _reflected(index: Integers, size: int) -> Integers:
    """Beyond an edge as before it; the pixel at the edge is there twice: 1 0 | 0 1 2."""
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)
