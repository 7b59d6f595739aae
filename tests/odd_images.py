"""Image files that Pillow does not write: TIFF and PNG of many bits, JPEG of rare color spaces, claims of size."""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image


def tiff(
    values: npt.NDArray[np.generic], *, kind: int = 1, bits: int | None = None, white_is_zero: bool = False
) -> bytes:
    """An uncompressed TIFF. values: (height, width) or (height, width, channels), little-endian; kind: 1 unsigned, 2
    signed, 3 fractions; bits: of a value, if other than its type has."""
    height, width, *rest = values.shape
    channels = rest[0] if rest else 1
    bits = bits or 8 * values.dtype.itemsize
    data = values.tobytes()
    color = 2 if channels >= 3 else int(not white_is_zero)
    entries = {256: width, 257: height, 259: 1, 262: color, 277: channels, 278: height, 279: len(data)}
    lists = {258: [bits] * channels, 339: [kind] * channels}
    if channels in (2, 4):
        entries[338] = 2
    count = len(entries) + len(lists) + 1
    end = 8 + 2 + 12 * count + 4
    tail = b""
    rows = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items()}
    for tag, numbers in lists.items():
        packed = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(packed) <= 4:
            rows[tag] = struct.pack("<HHI", tag, 3, len(numbers)) + packed.ljust(4, b"\0")
        else:
            rows[tag] = struct.pack("<HHII", tag, 3, len(numbers), end + len(tail))
            tail += packed
    rows[273] = struct.pack("<HHII", 273, 4, 1, end + len(tail))
    directory = struct.pack("<H", count) + b"".join(rows[tag] for tag in sorted(rows)) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + tail + data


def png(values: npt.NDArray[np.generic]) -> bytes:
    """A PNG of 8 or 16 bits. values: (height, width, channels)."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(values.dtype.newbyteorder(">")).tobytes() for line in values)
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * values.dtype.itemsize, color, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def smooth(height: int = 37, width: int = 53) -> npt.NDArray[np.uint8]:
    """A picture in color, without edges: (height, width, 3)."""
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def jpegs() -> dict[str, bytes]:
    """JPEG files of every usual kind, and of rare ones, by name."""
    picture = Image.fromarray(smooth())

    def saved(image: Image.Image, **how: object) -> bytes:
        file = io.BytesIO()
        image.save(file, "JPEG", **how)
        return file.getvalue()

    cmyk = saved(picture.convert("CMYK"))
    ycck = bytearray(cmyk)
    ycck[cmyk.index(b"Adobe") + 11] = 2
    start = cmyk.index(b"\xff\xee")
    length = int.from_bytes(cmyk[start + 2 : start + 4])
    rotated = Image.Exif()
    rotated[0x112] = 6
    return {
        "4:2:0": saved(picture),
        "4:4:4": saved(picture, subsampling=0),
        "progressive": saved(picture, progressive=True, quality=30),
        "gray": saved(picture.convert("L")),
        "RGB": saved(picture, keep_rgb=True),
        "CMYK": cmyk,
        "YCCK": bytes(ycck),
        "CMYK without Adobe's mark": cmyk[:start] + cmyk[start + 2 + length :],
        "rotated": saved(picture, exif=rotated),
    }
