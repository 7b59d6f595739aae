"""Frost on a window, made by formula: the photographs of ImageNet-C are not free to be copied.

Each picture has the mean and the spread, by channel, of one of the five photographs that ImageNet-C chooses from (of
which the second and the third are the same). A picture goes on at its other side where it ends.
"""

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import fft

from accel_trainer.core import keyed_random
from accel_trainer.degradations.degradation import Pixels
from accel_trainer.degradations.keyed_numbers import Floats, KeyedNumbers

SIDE = 512
PUBLISHED_MEANS = ((78, 149, 166), (201, 205, 215), (201, 205, 215), (138, 153, 165), (112, 123, 135))
PUBLISHED_SPREADS = ((27, 17, 15), (21, 22, 23), (21, 22, 23), (28, 28, 30), (44, 43, 42))
# Waves across the picture, and how much longer than wide crystals are.
SCALES = (4, 9, 20, 45)
ELONGATION = 6
DIRECTIONS = 5


@lru_cache(maxsize=15)
def frost_picture(number: int, scale: float) -> Pixels:
    """One of five, 0 to 4: uint8 (side, side, 3), side 512 times scale, rounded."""
    field = _crystals(KeyedNumbers(keyed_random.key("frost picture", number)))
    colors = np.array(PUBLISHED_MEANS[number]) + field[..., None] * np.array(PUBLISHED_SPREADS[number])
    side = round(SIDE * scale)
    picture = Image.fromarray(np.clip(colors, 0, 255).astype(np.uint8))
    return np.array(picture.resize((side, side), Image.Resampling.BOX))


def _crystals(numbers: KeyedNumbers) -> Floats:
    """Needles in some directions and of some widths, the highest in front: float64 (SIDE, SIDE), mean 0, spread 1."""
    rows, columns = fft.fftfreq(SIDE, 1 / SIDE)[:, None], fft.rfftfreq(SIDE, 1 / SIDE)
    layers = np.zeros((SIDE, SIDE))
    for index, waves in enumerate(SCALES):
        highest = np.full((SIDE, SIDE), -np.inf)
        for direction in range(DIRECTIONS):
            angle = np.pi * (direction + float(numbers.uniform(f"angle {index} {direction}"))) / DIRECTIONS
            along = columns * np.cos(angle) + rows * np.sin(angle)
            across = rows * np.cos(angle) - columns * np.sin(angle)
            band = np.exp(-((along * ELONGATION / waves) ** 2) - (np.abs(across) / waves - 1) ** 2 * 4)
            noise = numbers.uniform(f"noise {index} {direction}", (SIDE, SIDE), -1, 1)
            highest = np.maximum(highest, _unit(fft.irfft2(fft.rfft2(noise) * band, (SIDE, SIDE))))
        layers += _unit(highest) / (index + 1)
    return _unit(layers)


def _unit(field: Floats) -> Floats:
    return np.asarray((field - field.mean()) / field.std())
