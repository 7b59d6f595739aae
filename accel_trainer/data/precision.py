"""The precision that float32 is computed in."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

_CUDNN: Any = torch.backends.cudnn
# torch says the same in two ways, of which the newer one is not there in each version: reading the older one where
# somebody has used the newer is an error.
_PLACES: tuple[Any, ...] = tuple(
    place
    for place in (
        torch.backends.cuda.matmul,
        getattr(_CUDNN, "conv", None),
        getattr(_CUDNN, "rnn", None),
        getattr(getattr(torch.backends, "mkldnn", None), "matmul", None),
    )
    if hasattr(place, "fp32_precision")
)


@contextmanager
def float32_as(*, tf32: bool) -> Iterator[None]:
    """float32 means float32 in products and convolutions, or on a GPU TF32, with 10 bits of its 23; afterwards torch's
    settings are as before, in whichever of its two ways they were made. What is of GPUs was not run on one."""
    places = [place.fp32_precision for place in _PLACES]
    word, allowed = _read(torch.get_float32_matmul_precision), _read(lambda: _CUDNN.allow_tf32)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    _CUDNN.allow_tf32 = tf32
    try:
        yield
    finally:
        if word is not None:
            torch.set_float32_matmul_precision(word)
        if allowed is not None:
            _CUDNN.allow_tf32 = allowed
        for place, before in zip(_PLACES, places, strict=True):
            if place.fp32_precision != before:
                place.fp32_precision = before


def _read(setting: Any) -> Any:
    """None where it was made in the newer way."""
    with suppress(RuntimeError):
        return setting()
    return None


@contextmanager
def exact_float32(images: Tensor) -> Iterator[None]:
    """float32 means float32 for images on a GPU, whatever their model is trained in: TF32 would change pixels by a
    thousandth."""
    if not images.is_cuda:
        yield
        return
    with float32_as(tf32=False):
        yield
