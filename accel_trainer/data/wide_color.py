"""Colors of 16 bits for each channel, of which Pillow keeps the high byte: what it leaves out, where that is all.

Of 8-bit values in such a file all high bytes are 0, and its image is black, or white where 0 is no ink.
"""

import io
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# How Pillow calls channels of 16 bits by their order of bytes, and what reads the other byte of each.
_NATIVE = ";16L" if sys.byteorder == "little" else ";16B"
_OTHER_BYTE = {";16L": ";16B", ";16B": ";16L"}
# Gray and transparency are read to four channels; as four bytes they are gray's two and transparency's two.
_GRAY_WITH_ALPHA, _FOUR_BYTES = "LA;16B", "RGBA"
_ALPHA = {"RGBA": 3, "LA": 1, "RGBX": 3}
# Pixmaps, which Pillow scales.
_PIXMAP = "ppm"
# Of TIFF: bits of a value; and what is read of one channel alone.
_TIFF_BITS, _PLANES = 258, frozenset("RGBACMYK")

Bands = npt.NDArray[np.uint8]


def wide_content(image: Image.Image) -> bytes | None:
    """The file of an image that is not loaded yet and has 16 bits for each of several channels; None for any other."""
    file, tiles = getattr(image, "fp", None), _tiles(image)
    if file is None or len(image.getbands()) == 1 or not any(_is_wide(tile) for tile in tiles):
        return None
    position = file.tell()
    file.seek(0)
    content: bytes = file.read()
    file.seek(position)
    return content


def has_misread_planes(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet is a TIFF with 16-bit channels one after the other, uncompressed: Pillow
    takes every byte there for a value."""
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS, (8,))
    return max(bits) == 16 and any(tile.codec_name == "raw" and _raw_mode(tile) in _PLANES for tile in _tiles(image))


def lost_value(image: Image.Image, content: bytes) -> int:
    """The largest value of an image of which Pillow has left nothing: all high bytes are 0, and not all low ones.
    0 where something is left, and for an image that is black.

    image: as Pillow has loaded it; content: of `wide_content`.
    """
    if _colors(image).max(initial=0) > 1:
        return 0
    with Image.open(io.BytesIO(content)) as again:
        again.seek(image.tell())
        tiles = _tiles(again)
        if tiles[0].codec_name == _PIXMAP:
            return _lost_of_pixmap(again, tiles[0], content)
        if _colors(image).any():
            return 0
        is_gray = _raw_mode(tiles[0]) == _GRAY_WITH_ALPHA
        again.tile = [tile._replace(args=_with_other_byte(tile.args)) for tile in tiles]
        again.load()
        low: int = (np.asarray(again)[:, :, 1] if is_gray else _colors(again)).max(initial=0)
        return int(low)


def _colors(image: Image.Image) -> Bands:
    """uint8 (height, width, channels), without transparency."""
    return np.asarray(image)[:, :, : _ALPHA.get(image.mode)]


def _tiles(image: Image.Image) -> Sequence[Any]:
    """Where the parts of an image are in its file, of one that is not loaded."""
    tiles: Sequence[Any] = getattr(image, "tile", ())
    return tiles


def _is_wide(tile: Any) -> bool:
    raw = _raw_mode(tile)
    return (";16" in raw) or (tile.codec_name == _PIXMAP and raw == "RGB" and tile.args[1] > 255)


def _raw_mode(tile: Any) -> str:
    args = tile.args
    first = args if isinstance(args, str) or not args else args[0]
    return first if isinstance(first, str) else ""


def _with_other_byte(args: str | Sequence[Any]) -> str | tuple[Any, ...]:
    if not isinstance(args, str):
        first = _with_other_byte(args[0])
        return (first, *args[1:])
    if args == _GRAY_WITH_ALPHA:
        return _FOUR_BYTES
    raw = args.replace(";16N", _NATIVE)
    return next((raw.replace(one, other) for one, other in _OTHER_BYTE.items() if one in raw), raw)


def _lost_of_pixmap(image: Image.Image, tile: Any, content: bytes) -> int:
    """Pillow rounds such values to bytes; as of gray, one that is less than a 255th of the largest is lost."""
    values = np.frombuffer(content, ">u2", count=3 * image.width * image.height, offset=tile.offset)
    highest = int(values.max(initial=0))
    return highest if highest * 255 // tile.args[1] == 0 else 0
