"""Random fields: a number for every pixel, from one key for each image.

The hash is computed with integers on whichever device the images are, so that a CPU and a GPU draw the same field;
a generator of torch would draw another one on each kind of device.
"""

import math
from collections.abc import Callable

import numpy as np
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
    # Mixed once more, so that keys that are alike in some bits do not give fields that are alike.
    halves = torch.from_numpy(keyed_random.splitmix64(keys).view(np.int32).reshape(-1, 2)).to(device, non_blocking=True)
    counter = torch.arange(count, dtype=torch.int32, device=device).mul_(_signed(_GOLDEN))
    x = counter[None] + halves[:, :1]
    _xor_shift(x, 16).mul_(_signed(_FIRST))
    # The lower half says where the counter starts; the upper one comes in between, or fields would be shifted copies.
    x.bitwise_xor_(halves[:, 1:])
    _xor_shift(x, 15).mul_(_signed(_SECOND))
    return _xor_shift(x, 16)


def uniform_field(keys: Keys, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Numbers above 0 and up to 1, float32 of shape (len(keys), *shape); the same for the same key on every device."""
    hashes = _hashes(keys, math.prod(shape), torch.device(device))
    # 24 bits are what a float32 holds; the half keeps 0 out, of which there is no logarithm.
    numbers = torch.bitwise_right_shift(hashes, 8).bitwise_and_(0xFFFFFF).to(torch.float32)
    return numbers.add_(0.5).mul_(2.0**-24).view(len(keys), *shape)


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
