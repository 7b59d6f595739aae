"""Random numbers for one image under one condition: functions of a key, without a generator that could change."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from accel_trainer.core import keyed_random

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KeyedNumbers:
    """Random numbers by what they are for; the same question has the same answer.

    key: 64 bits. All but the key's own bits are float64 or int64, of the shape that is asked for.
    """

    key: int

    def uniform(self, purpose: str, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0) -> Floats:
        """Numbers in [low, high)."""
        count = int(np.prod(shape))
        numbers = keyed_random.uniforms(keyed_random.key(self.key, purpose), [0], count)
        return low + (high - low) * numbers.reshape(shape)

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Floats:
        """Numbers of mean 0 and standard deviation 1, by the inverse of their distribution function."""
        # Half a step keeps 0 out, of which there is none.
        numbers: Floats = ndtri(self.uniform(purpose, shape) + 2.0**-54)
        return numbers

    def integers(self, purpose: str, low: int, high: int, shape: tuple[int, ...] = ()) -> Integers:
        """Whole numbers from low to high - 1."""
        return (low + np.floor(self.uniform(purpose, shape) * (high - low))).astype(np.int64)
