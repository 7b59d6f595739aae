"""Noise of each value by itself: Gaussian, shot, impulse and speckle."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from accel_trainer.degradations.degradation import Pixels
from accel_trainer.degradations.imagenet_c.pixel_values import cut
from accel_trainer.degradations.imagenet_c.severity import Constants
from accel_trainer.degradations.keyed_numbers import Floats, KeyedNumbers

# A power of two, so that the bin of a number is that of its upper bits.
BINS = 1024


def gaussian_noise(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """A number of a normal distribution is added to each value."""
    (sigma,) = constants
    return cut(image / 255 + sigma * numbers.normal("noise", image.shape))


def speckle_noise(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """As Gaussian noise, times the value."""
    (sigma,) = constants
    values = image / 255
    return cut(values + values * sigma * numbers.normal("noise", image.shape))


def impulse_noise(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """A part of the values becomes 0 or 255, as often one as the other."""
    (amount,) = constants
    drawn = numbers.uniform("noise", image.shape)
    noisy = np.where(drawn < amount, np.uint8(255), image)
    noisy[drawn < amount / 2] = 0
    return noisy


def shot_noise(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Each value is counted in so many photons, of a Poisson distribution."""
    (photons,) = constants
    table = _photon_table(int(photons))
    drawn = numbers.uniform("noise", image.shape).ravel()
    counts = table.by_bin.take(image.ravel() * np.int64(BINS) + (drawn * BINS).astype(np.int64))
    unsure = np.flatnonzero(counts < 0)
    counts[unsure] = table.count(image.ravel()[unsure], drawn[unsure])
    pixels: Pixels = table.values.take(counts).reshape(image.shape)
    return pixels


@dataclass(frozen=True)
class _PhotonTable:
    """The inverses of the distribution functions for all values, one after another in one sorted table.

    at_most: v plus the probability of at most k photons at value v, for k below `photons`, from which on all is white.
    by_bin: int16, numbers of photons by the upper bits of what is drawn, where these decide; -1 where they do not.
    values: what a number of photons shows as.
    """

    photons: int
    at_most: Floats
    by_bin: npt.NDArray[np.int16]
    values: Pixels

    def count(self, image: Pixels, drawn: Floats) -> npt.NDArray[np.int64]:
        places: npt.NDArray[np.int64] = np.searchsorted(self.at_most, image + drawn, side="right")
        return places - image * np.int64(self.photons)


@lru_cache(maxsize=16)
def _photon_table(photons: int) -> _PhotonTable:
    value = np.arange(256)[:, None]
    # At 1 begins the next value, and no number that is drawn is as much.
    at_most = (value + np.minimum(stats.poisson.cdf(np.arange(photons), value / 255 * photons), 1)).ravel()
    starts = value + np.arange(BINS) / BINS
    at_start = np.searchsorted(at_most, starts, side="right") - value * photons
    at_end = np.searchsorted(at_most, starts + 1 / BINS, side="left") - value * photons
    by_bin = np.where(at_start == at_end, at_start, -1).astype(np.int16).ravel()
    return _PhotonTable(photons, at_most, by_bin, cut(np.arange(photons + 1) / photons))
