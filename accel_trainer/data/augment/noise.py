"""Noise of a given strength: Gaussian, or with the Fourier amplitudes of the images and random phases."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.config.augmentations import NoiseType, prob_of_each
from accel_trainer.data.augment.effect import SimpleEffect, change_rows, column
from accel_trainer.data.rng.draws import Draws, Keys, Numbers, Parameters, choose, which
from accel_trainer.data.rng.random_fields import normal_field, uniform_field

# At a ratio of 0, three standard deviations of Gaussian noise reach from mid-gray to black and to white.
GAUSSIAN_SD = 1 / 6


@dataclass(frozen=True)
class NoiseParameters(Parameters):
    """ssnr: signal divided by signal plus noise, 0 to 1; kind: index into the noise types, -1 for none; key: of the
    noise's random field.
    """

    ssnr: Numbers
    kind: npt.NDArray[np.int64]
    key: Keys


FourierField = Callable[[Keys, Tensor], Tensor]
"""(keys, spectrum) to float32 (rows, channels, size, size) from 0 to 1."""


class AddNoise(SimpleEffect):
    """Noise by one of several ratios, each as often as `probs` says, and none for the rest.

    Both kinds shrink the image's contrast to (x - 0.5) * ssnr + 0.5, add noise, and clamp to 0..1. Gaussian noise has
    the standard deviation (1 - ssnr) / 6 in every pixel and channel; Fourier noise is `fourier_field`, less 0.5,
    times 1 - ssnr.
    """

    def __init__(
        self,
        noise_types: Sequence[NoiseType],
        ssnrs: Sequence[float],
        probs: Sequence[float],
        spectrum: Tensor | None = None,
        field: FourierField | None = None,
    ) -> None:
        """spectrum: of Fourier noise, as its `field` takes it: a half_spectrum for `fourier_field`, which is the
        default, a whole one for `modulus_field`."""
        self.noise_types = list(noise_types)
        self.ssnrs = np.array([*ssnrs, 1.0])  # the last for -1: none drawn
        self.probabilities = prob_of_each(len(ssnrs), list(probs))
        self._add = [
            _add_gaussian if name == "gaussian" else _fourier_adder(spectrum, field or fourier_field)
            for name in noise_types
        ]

    def draw(self, draws: Draws) -> NoiseParameters:
        """A ratio, a kind of noise and the key of its random field for each row."""
        numbers = draws.uniforms("noise", 2)
        level = choose(numbers[:, 0], self.probabilities)
        kind = which(numbers[:, 1], len(self.noise_types))
        return NoiseParameters(self.ssnrs[level], np.where(level >= 0, kind, -1), draws.keys("noise field"))

    def apply(self, images: Tensor, fetched: NoiseParameters) -> Tensor:
        """Add its noise to each row that has any."""
        for kind, add in enumerate(self._add):
            rows = np.flatnonzero(fetched.kind == kind)
            images = change_rows(images, rows, add, fetched.ssnr, fetched.key)
        return images


def _add_gaussian(images: Tensor, ssnr: Numbers, key: Keys) -> Tensor:
    noise = normal_field(key, tuple(images.shape[1:]), images.device)
    noise.mul_(column((1 - ssnr) * GAUSSIAN_SD, images))
    return _faded(images, ssnr).add_(noise).clamp_(0, 1)


def _fourier_adder(spectrum: Tensor | None, field: FourierField) -> Callable[[Tensor, Numbers, Keys], Tensor]:
    if spectrum is None:
        raise ValueError("Fourier noise needs a spectrum")
    on_device = spectrum

    def add(images: Tensor, ssnr: Numbers, key: Keys) -> Tensor:
        nonlocal on_device
        on_device = on_device.to(images.device, non_blocking=True)  # it stays where the images are
        noise = field(key, on_device).sub_(0.5)
        return _faded(images, ssnr).addcmul_(noise, column(1 - ssnr, images)).clamp_(0, 1)

    return add


def _faded(images: Tensor, ssnr: Numbers) -> Tensor:
    """The signal: contrast around mid-gray shrunk to ssnr. Overwrites the images."""
    contrast = column(ssnr, images)
    return images.mul_(contrast).add_(0.5 * (1 - contrast))


def half_spectrum(amplitudes: Tensor) -> Tensor:
    """The columns of a two-dimensional spectrum (..., height, width) that the others mirror, as rfft2 gives them."""
    return amplitudes[..., : amplitudes.shape[-1] // 2 + 1].contiguous()


def fourier_field(keys: Keys, spectrum: Tensor) -> Tensor:
    """Noise with given Fourier amplitudes and uniformly random phases, scaled to 0..1 in each channel.

    spectrum: float32 (channels, size, size // 2 + 1), a half_spectrum, of a square image; the result: float32
    (rows, channels, size, size). Channels have phases of their own. The mean of a field is of no
    account: scaling moves it.
    """
    size = spectrum.shape[-2]
    phases = uniform_field(keys, tuple(spectrum.shape), spectrum.device).mul_(2 * math.pi)
    waves = torch.polar(spectrum.expand_as(phases), phases)
    # The columns that mirror themselves must be their own mirror images, or the field would not be real.
    _mirror_columns(waves, size)
    return _scaled(torch.fft.irfft2(waves, s=(size, size)))


def modulus_field(keys: Keys, spectrum: Tensor) -> Tensor:
    """The absolute values of a complex field with given amplitudes, scaled to 0..1 in each channel.

    Every frequency has a uniformly random phase of its own, also those that mirror each other, as in the code of Coggan
    and Tong, which shuffles the phases of an image. spectrum: float32 (3, size, size), zero frequency first; the
    result: float32 (rows, 3, size, size).
    """
    phases = uniform_field(keys, tuple(spectrum.shape), spectrum.device).mul_(2 * math.pi)
    return _scaled(torch.fft.ifft2(torch.polar(spectrum.expand_as(phases), phases)).abs())


def _scaled(field: Tensor) -> Tensor:
    """From 0 to 1 in each channel, in place."""
    low, high = field.amin((-2, -1), keepdim=True), field.amax((-2, -1), keepdim=True)
    output: Tensor = field.sub_(low).div_((high - low).clamp_min(torch.finfo(torch.float32).tiny))
    return output


def _mirror_columns(waves: Tensor, size: int) -> None:
    own_rows = [0] if size % 2 else [0, size // 2]
    for column_index in own_rows:  # a square image: the same numbers
        line = waves[..., column_index]
        upper = line[..., 1 : (size + 1) // 2]
        line[..., size // 2 + 1 :] = upper.conj().flip(-1)
        for row in own_rows:
            # Its own mirror image is real: of its amplitude, above or below zero as the phase has it.
            wave = line[..., row]
            line[..., row] = torch.where(wave.imag < 0, -wave.abs(), wave.abs()).to(wave.dtype)


def pink_spectrum(size: int) -> Tensor:
    """Amplitudes of 1 / frequency, as natural images have them on average: a half_spectrum, float32."""
    down, across = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    frequency = torch.hypot(down[:, None], across[None])
    frequency[0, 0] = 1.0
    return (1 / frequency).expand(3, -1, -1).contiguous()
