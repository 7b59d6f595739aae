"""An image as the model takes it: the preprocessing of the validation of its training, with the same bits.

Needs torch, NumPy and Pillow. The numbers are in preprocessing.json beside this file.
"""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def preprocess(image: "str | os.PathLike[str] | Image.Image") -> Tensor:
    """float32 (3, image_size, image_size) of a file or a PIL image: the shorter side resized, the center cropped,
    then normalized. Transparency is dropped."""
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return preprocess(opened)
    settings = _settings()
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    cropped = _center(_resized(pixels, settings["resize_shorter_side_to"]), settings["image_size"])
    scale, shift = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("byte_scale", "byte_shift"))
    return cropped.to(torch.float32).mul_(scale).add_(shift).contiguous()


@cache
def _settings() -> Any:
    return json.loads((Path(__file__).parent / "preprocessing.json").read_text())


def _resized(pixels: Tensor, short_side: int) -> Tensor:
    """uint8 (3, height, width) with that shorter side: bilinear, antialiased, in torch's kernel for bytes."""
    height, width = pixels.shape[-2:]
    long_side = int(short_side * max(height, width) / min(height, width))
    size = (short_side, long_side) if height <= width else (long_side, short_side)
    if size == (height, width):
        return pixels
    return functional.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]


def _center(pixels: Tensor, size: int) -> Tensor:
    top, left = (round((side - size) / 2) for side in pixels.shape[-2:])
    return pixels[:, top : top + size, left : left + size]
