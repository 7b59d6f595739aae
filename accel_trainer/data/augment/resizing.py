"""Antialiased resizing of images of 8 bits: bilinear by torch, bicubic by Pillow."""

from enum import StrEnum
from typing import assert_never

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# A share such as 224/232 is no binary fraction; its side is meant to be 232 all the same.
_ROUNDING = 1e-6
# Above the division that rounds down, whatever the last bits of a share are.
_MIDDLE = 0.5


class Filter(StrEnum):
    """What a pixel is computed with from those around it."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


def resize(image: Tensor, size: tuple[int, int], by: Filter = Filter.BILINEAR) -> Tensor:
    """uint8 (3, height, width) to another height and width.

    Bilinear in torch's kernel for bytes, as torchvision's v2.Resize of tensors; bicubic in Pillow's, as its Resize of
    images of Pillow, and timm's transforms.
    """
    if image.shape[-2:] == size:
        return image
    match by:
        case Filter.BILINEAR:
            return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        case Filter.BICUBIC:
            pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
            return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        case _:
            assert_never(by)


def short_side_of(image_size: int, share: float) -> int:
    """The side of which a crop of that size is that share."""
    return int(image_size / share + _ROUNDING)


def share_of(image_size: int, short_side: int) -> float:
    """The share that `short_side_of`, and others who round down, take for that side."""
    share = image_size / short_side
    return share if int(image_size / share) == short_side else image_size / (short_side + _MIDDLE)
