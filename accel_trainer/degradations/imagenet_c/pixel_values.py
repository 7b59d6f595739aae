"""Values from 0 to 1 of pixels and back, as ImageNet-C has them."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from accel_trainer.degradations.degradation import Pixels
from accel_trainer.degradations.keyed_numbers import Floats

Float32s = npt.NDArray[np.float32]


def cut(values: npt.NDArray[np.floating]) -> Pixels:
    """From 0 to 1, clipped, as uint8 of the same shape: what is behind the point is cut off, as published."""
    clipped = np.clip(values, 0, 1)
    clipped *= 255
    pixels: Pixels = clipped.astype(np.uint8)
    return pixels


def blurred(values: Floats, sigma: float) -> Floats:
    """By a Gaussian, edges repeated, each channel by itself: float64, (size, size) or (size, size, 3)."""
    sigmas = (sigma, sigma, 0)[: values.ndim]
    result: Floats = ndimage.gaussian_filter(values, sigmas, mode="nearest", truncate=4.0)
    return result
