"""The parametric degradations of Geirhos et al. 2018, "Generalisation in humans and deep neural networks".

All but the opponent colors are of gray images, at every level: a contrast of 100% is the gray image. The image itself
is at the level NONE. Sizes are pixels of images of 224 pixels, and are not scaled.
"""

from collections.abc import Callable

import numpy as np
from scipy import fft, ndimage

from accel_trainer.degradations.degradation import NONE, Degradation, Pixels
from accel_trainer.degradations.keyed_numbers import Floats, KeyedNumbers

# ITU-R BT.709's luminance, as in scikit-image.
LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
# The mean of the study's images, which also surrounds an image that is filtered.
BACKGROUND = 0.4423
NOISE_CONTRAST = 0.3
# Cones' responses to a monitor's red, green and blue, and from cones to luminance, L-M and S (Brainard 1996), with the
# numbers of the study.
_CONES = np.array(
    [
        [0.1619982647, 0.208049264, 0.0389347448],
        [0.0330275785, 0.2496504557, 0.0618343518],
        [0.0015524055, 0.0198861001, 0.1890224274],
    ]
)
_OPPONENT = np.array(
    [[9.27590805, 9.27590805, 0], [7.86421647, -9.33587662, 0], [-3.39709047, -3.39709047, 12.16230246]]
)
_TO_OPPONENT = _OPPONENT @ _CONES
_TURNED = np.linalg.inv(_TO_OPPONENT) @ np.diag([1, -1, -1]) @ _TO_OPPONENT


def gray(image: Pixels) -> Floats:
    """Luminance from 0 to 1: float64 (size, size)."""
    weighted = image / 255 * LUMINANCE
    return np.asarray(weighted[..., 0] + weighted[..., 1] + weighted[..., 2])


def _pixels(values: Floats) -> Pixels:
    """From 0 to 1, gray or in color, clipped and rounded: uint8 (size, size, 3)."""
    rounded = np.floor(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.repeat(rounded[..., None], 3, axis=2) if rounded.ndim == 2 else rounded


def _with_contrast(values: Floats, contrast: float) -> Floats:
    return (1 - contrast) / 2 + values * contrast


def _contrast(image: Pixels, level: float, numbers: KeyedNumbers) -> Pixels:
    return _pixels(_with_contrast(gray(image), level))


def _uniform_noise(image: Pixels, width: float, numbers: KeyedNumbers) -> Pixels:
    noise = numbers.uniform("noise", image.shape[:2], -width, width)
    return _pixels(_with_contrast(gray(image), NOISE_CONTRAST) + noise)


def _blurred(values: Floats, sigma: float) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(values, sigma, mode="constant", cval=BACKGROUND)
    return blurred


def _low_pass(image: Pixels, sigma: float, numbers: KeyedNumbers) -> Pixels:
    return _pixels(_blurred(gray(image), sigma) if sigma else gray(image))


def _high_pass(image: Pixels, sigma: float, numbers: KeyedNumbers) -> Pixels:
    values = gray(image)
    if np.isinf(sigma):
        return _pixels(values)
    values = values - _blurred(values, sigma)
    return _pixels(values + (BACKGROUND - values.mean()))


def _phase_noise(image: Pixels, width: float, numbers: KeyedNumbers) -> Pixels:
    """Every frequency has its phase moved by up to `width` degrees. Those that mirror each other are moved by numbers
    of their own, as in the study's code, of which the real part is taken: contrast is lost too."""
    waves = fft.fftshift(fft.fft2(gray(image)))
    start = 1 - len(image) % 2  # the first row and column of an even size mirror themselves
    inner = waves[start:, start:].ravel()
    half = len(inner) // 2
    turns = np.exp(1j * np.deg2rad(numbers.uniform("phases", (half,), -width, width)))
    inner = np.concatenate([inner[:half] * turns, inner[half : half + 1], inner[half + 1 :] * turns.conj()])
    waves[start:, start:] = inner.reshape(len(image) - start, -1)
    return _pixels(fft.ifft2(fft.ifftshift(waves)).real)


def _rotation(image: Pixels, degrees: float, numbers: KeyedNumbers) -> Pixels:
    return _pixels(np.rot90(gray(image), int(degrees) // 90))


def _colorless(image: Pixels, level: float, numbers: KeyedNumbers) -> Pixels:
    return _pixels(gray(image))


def _opponent_colors(image: Pixels, level: float, numbers: KeyedNumbers) -> Pixels:
    """L-M and S turned about mid-gray of light; sRGB's curve stands for that of the study's monitor."""
    values = image / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) - 0.5
    turned = np.clip(0.5 + sum(light[..., i, None] * _TURNED[:, i] for i in range(3)), 0, 1)
    return _pixels(np.where(turned <= 0.0031308, turned * 12.92, 1.055 * turned ** (1 / 2.4) - 0.055))


def _two(word_off: str, word_on: str) -> Callable[[float], str]:
    return lambda level: word_on if level else word_off


GRAY_STUDIES = (
    Degradation("geirhos/colour", "gray", (1,), 0, _colorless, text=_two("cr", "bw")),
    Degradation("geirhos/false-colour", "opponent", (1,), 0, _opponent_colors, text=_two("true", "false")),
    Degradation(
        "geirhos/contrast",
        "contrast",
        (1, 0.5, 0.3, 0.15, 0.1, 0.05, 0.03, 0.01),
        NONE,
        _contrast,
        (0, 1),
        lambda level: f"c{f'{100 * level:g}':0>2}",
    ),
    Degradation(
        "geirhos/uniform-noise",
        "half width of the noise",
        (0, 0.03, 0.05, 0.1, 0.2, 0.35, 0.6, 0.9),
        NONE,
        _uniform_noise,
        (0, 1),
        "{:.2f}".format,
    ),
    Degradation("geirhos/low-pass", "sigma, pixels", (0, 1, 3, 5, 7, 10, 15, 40), NONE, _low_pass, (0, 1000)),
    Degradation(
        "geirhos/high-pass",
        "sigma, pixels",
        (np.inf, 3, 1.5, 1, 0.7, 0.55, 0.45, 0.4),
        NONE,
        _high_pass,
        (0.1, np.inf),
        "{:g}".format,
    ),
    Degradation(
        "geirhos/phase-scrambling", "half width, degrees", (0, 30, 60, 90, 120, 150, 180), NONE, _phase_noise, (0, 180)
    ),
    Degradation("geirhos/rotation", "degrees, counterclockwise", (0, 90, 180, 270), NONE, _rotation),
)
