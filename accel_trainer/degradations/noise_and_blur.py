"""Noise of a given strength and Gaussian blur, by the code that adds them to training images."""

import numpy as np
import torch
from torch import Tensor

from accel_trainer.config.augmentations import NoiseType
from accel_trainer.data.augment.blur import BlurParameters, GaussianBlur
from accel_trainer.data.augment.noise import AddNoise, NoiseParameters, half_spectrum, pink_spectrum
from accel_trainer.degradations.degradation import Degradation, Pixels
from accel_trainer.degradations.keyed_numbers import KeyedNumbers

SSNRS = (0.8, 0.6, 0.4, 0.2, 0.1)
SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)
MAX_SIGMA = 1000.0


def as_batch(image: Pixels) -> Tensor:
    """uint8 (size, size, 3) as float32 (1, 3, size, size) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).to(torch.float32).div_(255)


def as_pixels(batch: Tensor) -> Pixels:
    """float32 (1, 3, size, size) in 0..1 as uint8 (size, size, 3), rounded."""
    return np.ascontiguousarray(batch[0].mul(255).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def noise(name: str, kind: NoiseType, spectrum: Tensor | None = None) -> Degradation:
    """Noise by its signal-to-signal-plus-noise ratio, as `Noise` of a job adds it.

    spectrum: of Fourier noise, amplitudes float32 (3, size, size), zero frequency first; None: 1 / frequency.
    """
    amplitudes = None if spectrum is None else half_spectrum(spectrum)

    def apply(image: Pixels, ssnr: float, numbers: KeyedNumbers) -> Pixels:
        own = pink_spectrum(len(image)) if amplitudes is None else amplitudes
        effect = AddNoise([kind], [ssnr], [1.0], own)
        drawn = NoiseParameters(np.array([ssnr]), np.array([0]), np.array([numbers.key], np.uint64))
        return as_pixels(effect.apply(as_batch(image), drawn))

    return Degradation(name, "signal / (signal + noise)", SSNRS, 1.0, apply, between=(0.0, 1.0))


def _blur(image: Pixels, sigma: float, numbers: KeyedNumbers) -> Pixels:
    return as_pixels(GaussianBlur([sigma], [1.0]).apply(as_batch(image), BlurParameters(np.array([sigma]))))


BLUR = Degradation("blur", "standard deviation, pixels", SIGMAS, 0.0, _blur, between=(0.0, MAX_SIGMA))
