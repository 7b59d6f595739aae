"""An image as the model takes it: the preprocessing of the validation of its training.

It has the same bits, but for the blur of clips, which is the same to 1e-5. Needs torch, NumPy and Pillow. The numbers
are in preprocessing.json beside this file.
"""

import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

# A Gaussian reaches this many standard deviations; one below NO_BLUR (in pixels) changes nothing.
REACH, NO_BLUR = 3, 0.02


def preprocess(image: "str | os.PathLike[str] | Image.Image") -> Tensor:
    """float32 (3, image_size, image_size) of a file or a PIL image: resized, the center cropped, then normalized.
    Transparency is dropped.

    Where the model takes clips, (frames, 3, image_size, image_size): the image in each frame, blurred by the frame's
    standard deviation where the training's validation has blurred it.
    """
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            return preprocess(opened)
    settings = _settings()
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    cropped = _center(_resized(pixels, settings), settings["image_size"])
    if settings["frames"] is None:
        return _normalized(cropped, settings)
    if settings["frame_sigmas"] is None:
        return torch.stack([_normalized(cropped, settings)] * settings["frames"])
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    whole = cropped.to(torch.float32) / 255
    return torch.stack([(_blurred(whole, sigma) - mean) / std for sigma in settings["frame_sigmas"]])


@cache
def _settings() -> Any:
    return json.loads((Path(__file__).parent / "preprocessing.json").read_text())


def _resized(pixels: Tensor, settings: Any) -> Tensor:
    """uint8 (3, height, width) with that shorter side, or with both sides of that length; antialiased."""
    height, width = pixels.shape[-2:]
    side = settings["resize_shorter_side_to"]
    long_side = side if settings["squash"] else int(side * max(height, width) / min(height, width))
    size = (side, long_side) if height <= width else (long_side, side)
    if size == (height, width):
        return pixels
    if settings["interpolation"] == "bicubic":
        picture = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
        resized = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    return functional.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]


def _center(pixels: Tensor, size: int) -> Tensor:
    top, left = (round((side - size) / 2) for side in pixels.shape[-2:])
    return pixels[:, top : top + size, left : left + size]


def _normalized(pixels: Tensor, settings: Any) -> Tensor:
    scale, shift = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("byte_scale", "byte_shift"))
    return pixels.to(torch.float32).mul_(scale).add_(shift).contiguous()


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """float32 (3, height, width) by a Gaussian, mirrored at the edges."""
    if sigma <= NO_BLUR:
        return image
    rows, columns = (_blur_matrix(sigma, size) for size in image.shape[-2:])
    return rows @ (image @ columns.mT)


def _blur_matrix(sigma: float, size: int) -> Tensor:
    """float32 (size, size): the weights of all pixels of a line in each pixel of the blurred line."""
    reach = math.ceil(REACH * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    period = max(1, 2 * (size - 1))
    places = (torch.arange(size)[:, None] + offsets) % period
    places = torch.where(places >= size, period - places, places)
    return torch.zeros(size, size).scatter_add_(1, places, (weights / weights.sum()).expand(size, -1))
