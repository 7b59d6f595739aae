"""From the bytes of an image file to pixels."""

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

_JPEG_START = b"\xff\xd8\xff"


class CorruptImage(Exception):
    """An image that cannot be decoded; the text says why."""


def decode(content: bytes) -> Tensor:
    """RGB pixels of an encoded image: uint8 of shape (3, height, width), in channels-last memory.

    JPEG is decoded by libjpeg-turbo without holding the interpreter's lock, all else by Pillow. Grey images
    become RGB, transparency is dropped, EXIF rotation is not applied (as in torchvision's ImageFolder).
    Raises CorruptImage.
    """
    if not content:
        raise CorruptImage("the file is empty")
    if content.startswith(_JPEG_START):
        try:
            return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
        except RuntimeError:
            pass  # CMYK and other rare kinds: Pillow knows them, and says better what is wrong
    try:
        with Image.open(io.BytesIO(content)) as image:
            return from_array(np.asarray(image.convert("RGB")))
    except UnidentifiedImageError as error:
        raise CorruptImage("not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptImage(str(error)) from error


def from_array(pixels: "np.ndarray") -> Tensor:
    """(height, width, 3) uint8 array to a (3, height, width) tensor without moving a byte of a writable one."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
