import errno
import io
import os
import random
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import datasets
import numpy as np
import pytest
import torch
from helpers import plant_no_file
from PIL import Image
from torchvision import io as torchvision_io

from accel_trainer.data import decode as decode_module
from accel_trainer.data.decode import MAX_PIXELS, CorruptImage, decode, from_array, jpeg_size, read_image, to_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")


def encoded(mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind)
    return file.getvalue()


def as_pillow_has_it(content: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_has_the_pixels_of_torchvision(mode: str) -> None:
    content = encoded(mode, "JPEG")
    expected = torchvision_io.decode_jpeg(
        torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=torchvision_io.ImageReadMode.RGB
    )
    pixels = decode(content)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 37, 53)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_a_png_has_the_pixels_of_pillow(mode: str) -> None:
    content = encoded(mode, "PNG")
    torch.testing.assert_close(decode(content), as_pillow_has_it(content), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF", "WEBP"])
def test_other_formats_have_the_pixels_of_pillow(kind: str) -> None:
    content = encoded("RGB", kind)
    torch.testing.assert_close(decode(content), as_pillow_has_it(content), rtol=0, atol=0)


def test_transparency_of_an_image_is_dropped_when_decoded() -> None:
    file = io.BytesIO()
    image = Image.fromarray(PIXELS)
    image.putalpha(0)
    image.save(file, "PNG")
    assert (decode(file.getvalue()).permute(1, 2, 0).numpy() == PIXELS).all()


def test_a_cmyk_jpeg_has_the_pixels_of_pillow() -> None:
    content = encoded("CMYK", "JPEG")
    difference = decode(content).int() - as_pillow_has_it(content).int()
    assert difference.abs().max() <= 1


def test_the_format_of_an_image_is_independent_of_its_file_name() -> None:
    assert decode(encoded("RGB", "PNG")).shape == decode(encoded("RGB", "JPEG")).shape


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"dog, cat\n", "not an image"), (b"\xff\xd8\xff", "not an image")],
)
def test_what_is_no_image_is_corrupt(content: bytes, reason: str) -> None:
    with pytest.raises(CorruptImage, match=reason):
        decode(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "PPM"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_image_counts_as_a_corrupt_one(kind: str, part: float) -> None:
    content = encoded("RGB", kind)
    with pytest.raises(CorruptImage):
        decode(content[: int(part * len(content))])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", FORMATS)
def test_damage_is_corrupt_or_harmless_but_never_another_error(kind: str) -> None:
    chance = random.Random(3)
    for _ in range(150):
        damaged = bytearray(encoded("L", kind))
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(min(200, len(damaged)))] = chance.randrange(256)
        try:
            assert decode(bytes(damaged)).shape[0] == 3
        except CorruptImage:
            continue


@pytest.mark.parametrize("kind_of_number", range(20))
def test_a_tiff_with_a_damaged_directory_is_corrupt_or_harmless(kind_of_number: int) -> None:
    content = encoded("RGB", "TIFF")
    (directory,) = struct.unpack_from("<I", content, 4)
    (num_entries,) = struct.unpack_from("<H", content, directory)
    for entry in range(num_entries):
        damaged = bytearray(content)
        struct.pack_into("<H", damaged, directory + 4 + 12 * entry, kind_of_number)
        try:
            assert decode(bytes(damaged)).shape[0] == 3
        except CorruptImage:
            continue


@pytest.mark.parametrize("writeable", [True, False])
def test_an_array_becomes_a_tensor_that_may_be_written_to(writeable: bool) -> None:
    array = PIXELS.copy()
    array.flags.writeable = writeable
    pixels = from_array(array)
    assert (pixels.permute(1, 2, 0).numpy() == PIXELS).all()
    pixels[:] = 0
    assert (array == (0 if writeable else PIXELS)).all()


def test_16_bit_grey_is_scaled_and_not_made_white() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    pixels = decode(file.getvalue())
    assert pixels.shape == (3, 16, 16)
    np.testing.assert_array_equal(pixels[0].numpy().ravel(), values.ravel() // 257)


def test_an_image_in_memory_of_32_bit_integers_is_no_black_one() -> None:
    """Mode I is what Pillow makes of int32 arrays, and once made of PNGs of 16 bits: which of both is not said."""
    dark = np.linspace(0, 255, 256).astype(np.int32).reshape(16, 16)
    with pytest.raises(
        CorruptImage, match=r"its values reach 255, where white is 65,535: make it one of 8 bits \(mode L\)"
    ):
        to_pixels(Image.fromarray(dark))
    np.testing.assert_array_equal(to_pixels(Image.fromarray(dark).convert("L"))[0].numpy(), dark)
    np.testing.assert_array_equal(to_pixels(Image.fromarray(dark * 257))[0].numpy(), dark)
    assert not to_pixels(Image.fromarray(dark * 0)).any()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32"])
def test_8_bit_values_in_arrays_of_more_bits_are_no_black_images(dtype: str) -> None:
    """The datasets library stores such arrays as TIFFs of 16 or 32 bits; torchvision would make them black."""
    values = np.linspace(0, 255, 256).astype(dtype).reshape(16, 16)
    content = datasets.Image().encode_example(values)["bytes"]
    with pytest.raises(CorruptImage, match="its values reach 255, where white is"):
        decode(content)
    assert not decode(datasets.Image().encode_example(values * 0)["bytes"]).any()
    full = datasets.Image().encode_example(values.astype(np.uint16) * 257)["bytes"]
    np.testing.assert_array_equal(decode(full)[0].numpy(), values)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fractions_in_arrays_are_from_0_to_1(dtype: str) -> None:
    values = np.linspace(0, 255, 256).astype(dtype).reshape(16, 16)
    np.testing.assert_array_equal(decode(datasets.Image().encode_example(values / 255)["bytes"])[0].numpy(), values)
    with pytest.raises(CorruptImage, match="its fractions are from 0 to 255, not from 0 to 1"):
        decode(datasets.Image().encode_example(values)["bytes"])


# -- images made to do harm -------------------------------------------------------------------------------------


def jpeg_that_claims(width: int, height: int) -> bytearray:
    content = bytearray(encoded("RGB", "JPEG"))
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, height, width)
    return content


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(65_500, 65_500), (65_500, 2_733), (13_378, 13_378)])
def test_a_jpeg_that_would_be_too_large_is_corrupt_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    def decoded(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("accel_trainer.data.decode.decode_jpeg", decoded)
    with pytest.raises(CorruptImage, match=f"its {size[0]:,} x {size[1]:,} pixels are too many"):
        decode(bytes(jpeg_that_claims(*size)))


def test_the_largest_image_is_as_large_as_pillow_has_it() -> None:
    """So that an image is too large in one format where it is in the other."""
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    "content",
    [
        png_that_claims(50_000, 50_000),
        # Screens of 65,535 x 65,535 and 32,000 x 32,000 pixels.
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02L\x01\x00;",
        b"P6 32000 32000 255\n" + bytes(1000),
    ],
    ids=["PNG", "GIF", "PPM"],
)
def test_other_images_that_would_be_too_large_are_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptImage, match="decompression bomb"):
        decode(content)


def test_a_jpeg_without_a_size_among_what_comes_first_is_left_to_pillow() -> None:
    """Whatever libjpeg decodes has the size that was looked for before; what has none is not given to it."""
    chance, num_decoded = random.Random(0), 0
    for _ in range(600):
        damaged = bytearray(encoded("RGB", "JPEG"))
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(2, 180)] = chance.choice([0xFF, 0xC0, 0xDB, 0, 1, 2, chance.randrange(256)])
        if (size := jpeg_size(bytes(damaged))) is None or size[0] * size[1] > MAX_PIXELS:
            continue
        try:
            pixels = torchvision_io.decode_jpeg(torch.frombuffer(damaged, dtype=torch.uint8))
        except RuntimeError:
            continue
        num_decoded += 1
        assert pixels.shape[1:] == size[::-1]
    assert num_decoded > 100


def test_the_size_of_a_jpeg_comes_after_whatever_cameras_write_before_it() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(
        file,
        "JPEG",
        progressive=True,
        exif=b"Exif\0\0" + bytes(60_000),
        icc_profile=bytes(100_000),
        comment=b"\xff\xc0",
    )
    assert jpeg_size(file.getvalue()) == (53, 37)


def test_postscript_in_an_image_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for it."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # looked for anew
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(CorruptImage, match="not an image"):
        decode(content)
    assert not (tmp_path / "was-run").exists()
    with suppress(Exception), Image.open(io.BytesIO(content)) as image:
        image.load()
    assert (tmp_path / "was-run").exists()  # it would have been


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_an_image_that_is_no_file_is_corrupt(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.png"
    plant_no_file(path, kind)
    with pytest.raises(CorruptImage, match="not a regular file"):
        read_image(path)


def test_an_error_of_the_system_is_no_corrupt_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    with pytest.raises(FileNotFoundError):
        read_image(path)
    path.write_bytes(encoded("RGB", "PNG"))
    for number in (errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN):
        with monkeypatch.context() as patch:
            patch.setattr("os.open", Mock(side_effect=OSError(number, "no", str(path))))
            with pytest.raises(OSError, match="no"):
                read_image(path)


def test_bytes_that_were_not_read_whole_are_no_corrupt_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a disk gives the first part of a file and no more."""
    path = tmp_path / "image.png"
    path.write_bytes(encoded("RGB", "PNG"))
    size = path.stat().st_size
    fstat = os.fstat
    monkeypatch.setattr("os.fstat", lambda file: os.stat_result([*fstat(file)[:6], size + 100, *fstat(file)[7:]]))
    with pytest.raises(OSError, match=f"{size:,} bytes could be read of {size + 100:,}"):
        read_image(path)


def test_memory_that_is_short_is_no_corrupt_image(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, place in (("PNG", "from_array"), ("JPEG", "decode_jpeg")):
        message = "[enforce fail] DefaultCPUAllocator: can't allocate memory"
        error = MemoryError() if kind == "PNG" else RuntimeError(message)
        with monkeypatch.context() as patch:
            patch.setattr(decode_module, place, Mock(side_effect=error))
            with pytest.raises(MemoryError):
                decode(encoded("RGB", kind))


def test_a_reader_of_pillow_that_cannot_be_loaded_is_no_corrupt_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own folders may be on the disk that is away."""
    monkeypatch.setattr(decode_module, "import_module", Mock(side_effect=ImportError("no disk")))
    decode_module._load_readers.cache_clear()
    with pytest.raises(OSError, match=r"PIL\.JpegImagePlugin cannot be loaded: no disk"):
        decode(encoded("RGB", "PNG"))
    monkeypatch.undo()
    assert decode(encoded("RGB", "WEBP")).shape == (3, 37, 53)


def test_an_image_is_read_through_a_link(tmp_path: Path) -> None:
    """As in data sets that are made of others."""
    (tmp_path / "real.png").write_bytes(encoded("RGB", "PNG"))
    (tmp_path / "link.png").symlink_to("real.png")
    assert read_image(tmp_path / "link.png").shape == (3, 37, 53)
