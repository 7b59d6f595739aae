"""Random fields: a number for every pixel, from one key for each image.

The hash is computed with integers on whichever device the images are, so that a CPU and a GPU draw the same field;
a generator of torch would draw another one on each kind of device.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.core import keyed_random
from accel_trainer.data.rng.draws import Keys

RandomField = Callable[[Keys, tuple[int, ...], torch.device], Tensor]
"""(keys, shape, device) to float32 (len(keys), *shape)."""

_GOLDEN = 0x9E3779B9
# The constants of a 32-bit mixer with low bias (Wellons 2018, "Prospecting for hash functions": lowbias32).
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B


def _signed(value: int) -> int:
    """The same 32 bits as torch's int32 has them."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _xor_shift(x: Tensor, bits: int) -> Tensor:
    """x ^= x >> bits, with zeros coming in from the left."""
    return x.bitwise_xor_(torch.bitwise_right_shift(x, bits).bitwise_and_((1 << (32 - bits)) - 1))


def _hashes(keys: Keys, count: int, device: torch.device) -> Tensor:
    """32 random bits each: int32 of shape (len(keys), count)."""
    halves = torch.from_numpy(_halves(keys)).to(device, non_blocking=True)
    counter = torch.arange(count, dtype=torch.int32, device=device).mul_(_signed(_GOLDEN))
    return _mixed(counter[None] + halves[:, :1], halves[:, 1:])


def _halves(keys: Keys) -> npt.NDArray[np.int32]:
    """Where the counter starts, and what comes in between: int32 of shape (len(keys), 2)."""
    # Mixed once more, so that keys that are alike in some bits do not give fields that are alike.
    return keyed_random.splitmix64(keys).view(np.int32).reshape(-1, 2)


def _mixed(x: Tensor, between: Tensor | int) -> Tensor:
    """Hashes of counters, in place. between: half of a key, without which fields would be shifted copies."""
    _xor_shift(x, 16).mul_(_signed(_FIRST))
    x.bitwise_xor_(between)
    _xor_shift(x, 15).mul_(_signed(_SECOND))
    return _xor_shift(x, 16)


def uniform_field(keys: Keys, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Numbers above 0 and up to 1, float32 of shape (len(keys), *shape); the same for the same key on every device."""
    return _above_zero(_hashes(keys, math.prod(shape), torch.device(device))).view(len(keys), *shape)


def _above_zero(hashes: Tensor) -> Tensor:
    """Of 24 bits of each, which are what a float32 holds; the half keeps 0 out, of which there is no logarithm."""
    return torch.bitwise_right_shift(hashes, 8).bitwise_and_(0xFFFFFF).to(torch.float32).add_(0.5).mul_(2.0**-24)


def normal_field(keys: Keys, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Numbers of mean 0 and standard deviation 1, float32 of shape (len(keys), *shape), from -5.9 to 5.9.

    Box and Muller (1958): two uniform numbers make two normal ones.
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    uniform = uniform_field(keys, (2, pairs), device)
    radius = uniform[:, 0].log_().mul_(-2).sqrt_()
    angle = uniform[:, 1].mul_(2 * math.pi)
    normal = torch.stack([torch.cos(angle).mul_(radius), torch.sin(angle).mul_(radius)], dim=1)
    return normal.flatten(1)[:, :count].reshape(len(keys), *shape)


def normal_box(key: Keys, shape: tuple[int, int, int], box: tuple[int, int, int, int]) -> Tensor:
    """A box of `normal_field(key, shape)` on the CPU, without the numbers around it.

    key: of one field; shape: channels, height and width; box: top, bottom, left and right. The result: float32
    (channels, bottom - top, right - left).
    """
    top, bottom, left, right = box
    counters = _counters_of_pairs(shape)[:, :, top:bottom, left:right]
    start, between = _halves(key)[0].tolist()
    radius, angle = _above_zero(_mixed(counters + start, between))
    radius.log_().mul_(-2).sqrt_()
    flat = angle.mul_(2 * math.pi).view(-1)
    num_cosines = _num_in_first_half(shape, box)
    flat[:num_cosines].cos_()
    flat[num_cosines:].sin_()
    numbers: Tensor = angle.mul_(radius)
    return numbers


@lru_cache(maxsize=4)
def _counters_of_pairs(shape: tuple[int, int, int]) -> Tensor:
    """The counters, times _GOLDEN, of the two uniform numbers that each normal one is made of: int32 (2, *shape)."""
    count = math.prod(shape)
    pairs = (count + 1) // 2
    first = torch.arange(count, dtype=torch.int32) % pairs
    return torch.stack([first, first + pairs]).mul_(_signed(_GOLDEN)).view(2, *shape)


def _num_in_first_half(shape: tuple[int, int, int], box: tuple[int, int, int, int]) -> int:
    """How many numbers of a box are cosines, which come first in a field."""
    channels, height, width = shape
    top, bottom, left, right = box
    full_lines, rest = divmod((math.prod(shape) + 1) // 2, width)
    number = 0
    for channel in range(channels):
        line = full_lines - channel * height  # the first that is not of cosines alone
        number += (right - left) * min(max(line - top, 0), bottom - top)
        if top <= line < bottom:
            number += min(max(rest - left, 0), right - left)
    return number
