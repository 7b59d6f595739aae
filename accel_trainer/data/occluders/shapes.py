"""Fields of lines, shapes, patches and noise, of which the highest part covers a picture.

A field is float32 (size, size), of a generator and the size. What is highest is covered first: the higher a field's
quantile, the wider its lines, the larger its shapes.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatField = npt.NDArray[np.float32]
Distance = Callable[[FloatField, FloatField], FloatField]

# How many lines or shapes are in a picture, and their radius in pictures.
_NUMBER = (8, 20)
_RADIUS = (0.06, 0.16)
# Patches on a side, as of a vision transformer's picture of 224 pixels.
_PATCHES = 14
# Periods of noise in a picture.
COARSE, FINE = 8.0, 32.0


def grid(size: int) -> tuple[FloatField, FloatField]:
    """Down and across of every pixel, in pictures: (size, 1) and (1, size)."""
    place = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return place[:, None], place[None]


def patches(rng: np.random.Generator, size: int) -> FloatField:
    """Squares of a grid, each covered or not."""
    side = -(-size // _PATCHES)
    cells = rng.random((-(-size // side),) * 2, dtype=np.float32)
    return np.kron(cells, np.ones((side, side), np.float32))[:size, :size].astype(np.float32)


def straight_lines(rng: np.random.Generator, size: int) -> FloatField:
    """Nearness to the nearest of some lines of any direction."""
    down, across = grid(size)
    nearest = np.full((size, size), np.inf, np.float32)
    for angle, offset in zip(*_many(rng, (0, math.pi), (-0.6, 0.6)), strict=True):
        along = (down - 0.5) * np.float32(math.cos(angle)) + (across - 0.5) * np.float32(math.sin(angle))
        np.minimum(nearest, np.abs(along - np.float32(offset)), out=nearest)
    return -nearest


def curved_lines(rng: np.random.Generator, size: int) -> FloatField:
    """Nearness to the nearest of some arcs: parts of circles that are larger than the picture or smaller."""
    down, across = grid(size)
    nearest = np.full((size, size), np.inf, np.float32)
    for y, x, radius in zip(*_many(rng, (-0.5, 1.5), (-0.5, 1.5), (0.2, 1.0)), strict=True):
        distance = np.hypot(down - np.float32(y), across - np.float32(x)) - np.float32(radius)
        np.minimum(nearest, np.abs(distance), out=nearest)
    return -nearest


def shapes(rng: np.random.Generator, size: int, distance: Distance, *, is_filled: bool) -> FloatField:
    """Shapes of random place, size, proportion and direction, or their outlines: a shape is where `distance` of its own
    coordinates is below 1."""
    down, across = grid(size)
    nearest = np.full((size, size), np.inf, np.float32)
    drawn = _many(rng, (0, 1), (0, 1), _RADIUS, (0.5, 1), (0, 2 * math.pi))
    for y, x, radius, proportion, angle in zip(*drawn, strict=True):
        dy, dx = down - np.float32(y), across - np.float32(x)
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        along, beside = (dy * cos + dx * sin) / radius, (dx * cos - dy * sin) / (radius * proportion)
        own = distance(along.astype(np.float32), beside.astype(np.float32))
        np.minimum(nearest, own if is_filled else np.abs(own - 1) * np.float32(radius), out=nearest)
    return -nearest


def ellipse(y: FloatField, x: FloatField) -> FloatField:
    """Distance from the center in radii."""
    return np.hypot(y, x)


def rectangle(y: FloatField, x: FloatField) -> FloatField:
    """The same of a rectangle, along its sides."""
    return np.maximum(np.abs(y), np.abs(x))


def triangle(y: FloatField, x: FloatField) -> FloatField:
    """The same of a triangle with equal sides, whose inner circle has the radius 1."""
    half, height = np.float32(0.5), np.float32(math.sqrt(3) / 2)
    return np.maximum(np.maximum(-y, y * half + x * height), y * half - x * height)


def band_noise(rng: np.random.Generator, size: int, periods: float, *, is_oriented: bool = False) -> FloatField:
    """Noise of about so many periods in a picture; of one direction where it is oriented."""
    down, across = (np.fft.fftfreq(size, 1 / size), np.fft.rfftfreq(size, 1 / size))
    frequency = np.hypot(down[:, None], across[None])
    gain = np.exp(-0.5 * ((frequency - periods) / (0.3 * periods)) ** 2)
    if is_oriented:
        turn = np.arctan2(down[:, None], across[None]) - rng.uniform(0, math.pi)
        gain = gain * np.exp(-0.5 * (np.sin(turn) / 0.15) ** 2)
    return filtered_noise(rng, size, gain.astype(np.float32))


def pink_noise(rng: np.random.Generator, size: int) -> FloatField:
    """Noise with amplitudes of 1 / frequency."""
    frequency = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None])
    return filtered_noise(rng, size, (1 / np.maximum(frequency, 1)).astype(np.float32))


def filtered_noise(rng: np.random.Generator, size: int, gain: FloatField) -> FloatField:
    """White noise filtered by `gain` of shape (size, size // 2 + 1), scaled to a standard deviation of 1."""
    noise = rng.standard_normal((size, size), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(noise) * gain, s=(size, size))
    return (field / (field.std() or 1)).astype(np.float32)


def _many(rng: np.random.Generator, *ranges: tuple[float, float]) -> list[npt.NDArray[np.float64]]:
    """Some numbers of each range, as many of each."""
    number = int(rng.integers(*_NUMBER))
    return [rng.uniform(low, high, number) for low, high in ranges]
