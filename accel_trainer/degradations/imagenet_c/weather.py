"""Snow, frost and fog."""

import numpy as np
import torch

from accel_trainer.degradations.degradation import Pixels
from accel_trainer.degradations.imagenet_c.blurring import enlarged, motion_blurred
from accel_trainer.degradations.imagenet_c.frost_pictures import PUBLISHED_MEANS, frost_picture
from accel_trainer.degradations.imagenet_c.pixel_values import cut
from accel_trainer.degradations.imagenet_c.severity import Constants, published_size
from accel_trainer.degradations.keyed_numbers import Floats, KeyedNumbers

# Of the pictures of frost, by whose constants are used.
FROST_SCALES = {32: 0.2, 64: 0.3, 224: 1.0}
ROUGHNESS = 100.0
# BT.601's luminance, as OpenCV has it.
_LUMINANCE = (0.299, 0.587, 0.114)


def snow(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Flakes, blurred as they fall, and the same turned by 180 degrees, in front of a paler image."""
    mean, spread, zoom, threshold, radius, sigma, image_weight = constants
    size = len(image)
    drawn = mean + spread * numbers.normal("flakes", (size, size))
    flakes = enlarged(torch.from_numpy(drawn)[None, None], zoom)[0, 0].numpy().copy()
    flakes[flakes < threshold] = 0
    angle = float(numbers.uniform("angle", (), -135, -45))
    fallen = motion_blurred(cut(flakes).astype(np.float32), int(radius), sigma, angle)
    # Published with ImageMagick, which makes 8 bits of it, rounded.
    layer = (np.floor(fallen + np.float32(0.5)) / np.float32(255))[..., None]
    values = image.astype(np.float32) / 255
    # Not a product of matrices, whose last bits may depend on the number of threads.
    red, green, blue = (values[..., channel] * np.float32(weight) for channel, weight in enumerate(_LUMINANCE))
    pale = np.maximum(values, (red + green + blue)[..., None] * 1.5 + 0.5)
    return cut(np.float32(image_weight) * values + np.float32(1 - image_weight) * pale + layer + layer[::-1, ::-1])


def frost(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """A part of a picture of frost, any of them, is added to the image."""
    image_weight, frost_weight = constants
    size = len(image)
    number = int(numbers.integers("picture", 0, len(PUBLISHED_MEANS)))
    picture = frost_picture(number, FROST_SCALES[published_size(size)])
    side = len(picture)
    rows, columns = ((start + np.arange(size)) % side for start in numbers.integers("place", 0, side, (2,)))
    part = picture[rows[:, None], columns]
    return np.asarray(np.clip(image_weight * image + frost_weight * part, 0, 255).astype(np.uint8))


def fog(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Clouds are added, and all is made darker by as much as the brightest value may have become brighter."""
    amplitude, decay = constants
    size = len(image)
    values = image / 255
    brightest = values.max()
    clouds = plasma(1 << (size - 1).bit_length(), decay, numbers)[:size, :size, None]
    return cut((values + amplitude * clouds) * brightest / (brightest + amplitude))


def plasma(side: int, decay: float, numbers: KeyedNumbers) -> Floats:
    """Clouds by the diamond-square algorithm, from 0 to 1: float64 (side, side), which goes on at its other side.

    side: a power of two. decay: how much less rough it is at each halving; roughness enters squared, as published.
    """
    clouds = np.zeros((side, side))
    step, roughness = side, ROUGHNESS
    while step >= 2:
        half, count = step // 2, side // step
        wide = roughness**2
        drawn = wide * numbers.uniform(f"step {step}", (3, count, count), -1, 1)
        corners = clouds[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        middles = (pairs + np.roll(pairs, -1, axis=1)) / 4 + drawn[0]
        clouds[half::step, half::step] = middles
        beside = corners + np.roll(corners, -1, axis=1) + middles + np.roll(middles, 1, axis=0)
        below = corners + np.roll(corners, -1, axis=0) + middles + np.roll(middles, 1, axis=1)
        clouds[::step, half::step] = beside / 4 + drawn[1]
        clouds[half::step, ::step] = below / 4 + drawn[2]
        step, roughness = half, roughness / decay
    clouds -= clouds.min()
    # One of a single pixel is flat.
    return clouds / (clouds.max() or 1)
