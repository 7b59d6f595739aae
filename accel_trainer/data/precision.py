"""The precision that images are computed in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def exact_float32(images: Tensor) -> Iterator[None]:
    """float32 means float32 on a GPU, whatever its model is trained in: TF32 would change pixels by a thousandth. Not
    run on a GPU."""
    if not images.is_cuda:
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
