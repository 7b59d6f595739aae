"""From the bytes of an image file to pixels."""

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # a torchvision that has left decoding to others: Pillow then reads everything
    decode_jpeg = None

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
    if decode_jpeg is not None and content.startswith(_JPEG_START):
        try:
            return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
        except RuntimeError:
            pass  # CMYK and other rare kinds: Pillow knows them, and says better what is wrong
    try:
        with Image.open(io.BytesIO(content)) as image:
            return from_array(_rgb(image))
    except UnidentifiedImageError as error:
        raise CorruptImage("not an image") from error
    except Exception as error:  # Pillow's readers of damaged files fail in every way there is
        raise CorruptImage(str(error) or type(error).__name__) from error


def _rgb(image: Image.Image) -> "np.ndarray":
    """uint8 pixels (height, width, 3). 16-bit grey is scaled: Pillow's own conversion would make it white."""
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image, dtype=np.int64) // 257, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def from_array(pixels: "np.ndarray") -> Tensor:
    """(height, width, 3) uint8 array to a (3, height, width) tensor without moving a byte of a writable one."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
