"""From the bytes of an image file to pixels.

Files are not trusted: nothing is decoded before its header gives the size of the image, and no format is
read that makes Pillow start another program, as PostScript does.

Pixels of more than 8 bits become bytes by what their format says of the largest value, never by the values that are in
an image, or the same gray would be another in the next one; see `_of_gray`. What that would make black is no image.
"""

import errno
import io
import math
import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from accel_trainer.core import files
from accel_trainer.core.outage import UnsuitableFile
from accel_trainer.data.wide_color import has_misread_planes, lost_value, wide_content

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # a torchvision that has left decoding to others: Pillow then reads everything
    decode_jpeg = None

# What Pillow takes for a decompression bomb, too: 0.5 GB, far above any photograph in a data set. A JPEG of 600 bytes
# can claim 13 GB.
MAX_PIXELS = 178_956_970
# Pixels of 16 bits that are not compressed at all.
MAX_BYTES = 2**30
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "GIF", "JPEG2000", "PPM", "TIFF", "WEBP")
_READERS = [f"PIL.{name}ImagePlugin" for name in ("Jpeg", "Png", "Bmp", "Gif", "Jpeg2K", "Ppm", "Tiff", "WebP")]
if find_spec("PIL.AvifImagePlugin") is not None:  # since Pillow 11.3
    FORMATS += ("AVIF",)
    _READERS.append("PIL.AvifImagePlugin")
# How files begin that are images, of a kind that is not read: (at, these bytes), and what they are.
_NOT_READ = {
    (0, b"II*\0"): "a TIFF of a kind that is not read: store 8 or 16 bits for each channel",
    (0, b"MM\0*"): "a TIFF of a kind that is not read: store 8 or 16 bits for each channel",
    (4, b"ftypavif"): "AVIF, which Pillow reads since 11.3",
    (4, b"ftyphei"): "HEIC, which is not read",
    (0, b"<svg"): "SVG, which has no pixels",
}

# Of torch's allocator on a CPU.
_NO_MEMORY = "DefaultCPUAllocator"
_JPEG_START = b"\xff\xd8\xff"
# Markers of a frame, which has the size: SOF0 to SOF15, without DHT, JPG and DAC. All those with a length before it.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_OTHERS = frozenset({0xC4, 0xC8, 0xCC, *range(0xDB, 0xFF)})


ImageLike = Image.Image | str | os.PathLike[str] | npt.NDArray[np.uint8] | Tensor
"""An image as a caller may have it; see `to_pixels`."""


class CorruptImage(Exception):
    """An image that cannot be decoded; the text says why."""


def read_image(path: str | Path) -> Tensor:
    """`decode` of a file. Raises CorruptImage, and OSError where the file cannot be read: that says nothing of the
    image."""
    return decode(read_encoded(path))


def read_encoded(path: str | Path) -> bytes:
    """All bytes of the file of an image. Raises as `read_image`."""
    try:
        return files.read_bytes(path, MAX_BYTES)
    except UnsuitableFile as error:
        raise CorruptImage(error.strerror) from error


def to_pixels(image: ImageLike) -> Tensor:
    """uint8 (3, height, width), as `decode` gives it, of an image in any usual form.

    image: a path; a PIL image of any mode; a uint8 array (height, width, 3), or (height, width) for gray; a uint8
    tensor (3, height, width). Raises CorruptImage for what cannot be read or decoded, ValueError for another shape or
    dtype, TypeError for anything else.
    """
    match image:
        case str() | os.PathLike():
            try:
                return read_image(os.fspath(image))
            except OSError as error:
                raise CorruptImage(error.strerror or str(error)) from error
        case Image.Image():
            return _by_pillow(image)
        case np.ndarray():
            if image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
                return from_array(image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2))
            raise ValueError(
                f"an array of shape {image.shape} and {image.dtype}; give uint8 (height, width, 3) or (height, width)"
            )
        case Tensor():
            if image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3:
                return image.cpu()
            raise ValueError(f"a tensor of shape {tuple(image.shape)} and {image.dtype}; give uint8 (3, height, width)")
        case _:
            raise TypeError(
                f"an image is a path, a PIL image, an array or a tensor, not of type {type(image).__name__}"
            )


def decode(content: bytes) -> Tensor:
    """RGB pixels of an encoded image: uint8 of shape (3, height, width), in channels-last memory.

    JPEG is decoded by libjpeg-turbo without holding the interpreter's lock, all else by Pillow. Gray images
    become RGB, transparency is dropped, EXIF rotation is not applied but to TIFF (as in torchvision's ImageFolder), and
    of an animation the first frame counts.
    Raises CorruptImage; MemoryError, and OSError where a reader of Pillow cannot be loaded, say nothing of the image.
    """
    if not content:
        raise CorruptImage("the file is empty")
    if decode_jpeg is not None and (size := jpeg_size(content)) is not None:
        if math.prod(size) > MAX_PIXELS:
            raise CorruptImage(f"its {size[0]:,} x {size[1]:,} pixels are too many ({MAX_PIXELS:,} at most)")
        try:
            coded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            pixels: Tensor = decode_jpeg(coded, mode=ImageReadMode.RGB)
            return pixels
        except RuntimeError as error:
            if _NO_MEMORY in str(error):
                raise MemoryError(str(error)) from error
            # CMYK and other rare kinds: Pillow knows them, and says better what is wrong
    _load_readers()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _by_pillow(image)
    except UnidentifiedImageError as error:
        raise CorruptImage(_what_it_is(content)) from error
    except (CorruptImage, MemoryError):
        raise
    except Exception as error:  # Pillow's readers of damaged files fail in every way there is
        raise CorruptImage(str(error) or type(error).__name__) from error


def torchvision_decodes() -> bool:
    """Whether JPEGs are decoded by torchvision; else they are by Pillow."""
    return decode_jpeg is not None


def _what_it_is(content: bytes) -> str:
    """Why something is not read as an image."""
    known = (why for (at, start), why in _NOT_READ.items() if content.startswith(start, at))
    return next((f"not an image that can be read: it is {why}" for why in known), "not an image")


@cache
def _load_readers() -> None:
    """Load the readers of Pillow, once. It would load them when it first needs them, and pass over one that cannot be
    loaded: with its folder on a disk that is away, a WebP would be no image. Raises OSError."""
    for module in _READERS:
        try:
            import_module(module)
        except ImportError as error:
            raise OSError(errno.EIO, f"{module} cannot be loaded: {error}") from error


def _by_pillow(image: Image.Image) -> Tensor:
    """uint8 (3, height, width). Raises CorruptImage."""
    try:
        return from_array(_rgb(image))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers of damaged files fail in every way there is
        raise CorruptImage(str(error) or type(error).__name__) from error


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG, as libjpeg finds them; None for what is no JPEG, or an unusual one.

    Pillow finds it as well, but takes ten times as long.
    """
    if not content.startswith(_JPEG_START):
        return None
    position = 2
    while content[position : position + 1] == b"\xff" and position + 9 <= len(content):
        marker, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4])
        if marker in _JPEG_FRAMES:
            height, width = content[position + 5 : position + 7], content[position + 7 : position + 9]
            return int.from_bytes(width), int.from_bytes(height)
        if marker not in _JPEG_OTHERS or length < 2:
            break
        position += 2 + length
    return None


def _rgb(image: Image.Image) -> "np.ndarray":
    """uint8 pixels (height, width, 3). Raises CorruptImage for values that their type says nothing of."""
    if image.mode.startswith("I") or image.mode == "F":
        gray = _of_gray(image)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if has_misread_planes(image):
        raise CorruptImage("its channels of 16 bits are in planes of their own: store them interleaved, or with 8 bits")
    content = wide_content(image)
    pixels = np.asarray(image.convert("RGB"))
    if content is not None and (lost := lost_value(image, content)):
        raise CorruptImage(
            f"the values of its colors reach {lost:,}, where 16 bits reach 65,535: make it one of 8 bits"
        )
    return pixels


# Of TIFF: bits of a value; whether 0 is white or black; whether values are unsigned (1), signed (2) or fractions.
_BITS, _WHITE_OR_BLACK, _KIND = 258, 262, 339


def _of_gray(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Gray of more than 8 bits as bytes, uint8 (height, width), rounded down.

    Integers: 255 of the largest that their type has (a 257th of 16 bits), of 32 bits the highest 8. Fractions: from 0
    to 1. As torchvision's `to_dtype` with scale, but for 16 bits, where that is up to 1 more. Raises CorruptImage for
    negative values, for fractions beyond 1, and for integers that would all be black and are not, such as 8 bits that
    are stored as 16 or 32: of such an image it is not known what white is. An image in memory of mode I, which says no
    bits, has 16, as Pillow once read PNGs of 16 bits.
    """
    tags = getattr(image, "tag_v2", {})
    (bits, *_), (kind, *_) = tags.get(_BITS, (16,)), tags.get(_KIND, (1,))
    values, white = np.asarray(image), 2 ** (bits - (kind == 2)) - 1
    if bits == 32 and kind == 1:
        values = values.view(np.uint32)  # Pillow knows signed ones only
    lowest, highest = values.min(), values.max()
    if image.mode == "F":
        if not (lowest >= 0 and highest <= 1):  # NaN is neither
            raise CorruptImage(f"its fractions are from {lowest:g} to {highest:g}, not from 0 to 1")
        gray, white = values * np.float32(255.999), 1
    elif lowest < 0:
        raise CorruptImage(f"its values begin at {lowest:,}, and below 0 there is no gray")
    elif bits == 32:
        gray = values >> (24 - (kind == 2))
    else:
        gray = np.minimum(values, white).astype(np.uint32) * 255 // white
    pixels = gray.astype(np.uint8)
    if highest > 0 and not pixels.any():
        better = "store it with 8 or 16 bits" if bits == 32 or image.mode == "F" else "make it one of 8 bits (mode L)"
        raise CorruptImage(f"its values reach {highest:g}, where white is {white:,}: {better}")
    return 255 - pixels if tags.get(_WHITE_OR_BLACK) == 0 else pixels


def from_array(pixels: "np.ndarray") -> Tensor:
    """(height, width, 3) uint8 array to a (3, height, width) tensor without moving a byte of a writable one."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
