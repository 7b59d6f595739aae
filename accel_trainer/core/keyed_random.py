"""Randomness as a function: every draw follows from a seed and from what it is drawn for.

Nothing here has a state. A draw is the hash of its key, so it does not matter which process or thread
makes it, nor what was drawn before: a resumed run draws what the undisturbed run would have drawn.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key(*parts: int | str) -> int:
    """A 64-bit key for anything nameable, such as `key(seed, "crop", epoch)`."""
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def splitmix64(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_bits(draw_key: int, indices: Sequence[int] | npt.NDArray[np.int64], count: int) -> npt.NDArray[np.uint64]:
    """`count` words of 64 random bits for each index: uint64 of shape (len(indices), count).

    A row depends on the key and its index alone, not on the other indices.
    """
    with np.errstate(over="ignore"):
        index = np.asarray(indices).astype(np.uint64)
        rows = splitmix64(splitmix64(index * _GOLDEN + np.uint64(draw_key)) ^ np.uint64(draw_key))
        columns = (np.arange(count, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
        return splitmix64(rows[:, None] + columns[None, :])


def uniforms(draw_key: int, indices: Sequence[int] | npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    """`count` numbers in [0, 1) for each index: float64 of shape (len(indices), count); rows as those of `words`."""
    return unit_interval(random_bits(draw_key, indices, count))


def unit_interval(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Words of 64 random bits as numbers in [0, 1): the upper 53 bits, which is what a float64 holds."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(draw_key: int, length: int) -> npt.NDArray[np.int64]:
    """A permutation of range(length), int64: the order of one epoch.

    A generator's shuffle may change with the version of NumPy; sorting hashed numbers cannot.
    """
    return np.argsort(uniforms(draw_key, np.arange(length), 1)[:, 0], kind="stable")
