import io
import random
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import io as torchvision_io

from accel_trainer.data.decode import CorruptImage, decode, from_array

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


def test_transparency_is_dropped() -> None:
    file = io.BytesIO()
    image = Image.fromarray(PIXELS)
    image.putalpha(0)
    image.save(file, "PNG")
    assert (decode(file.getvalue()).permute(1, 2, 0).numpy() == PIXELS).all()


def test_a_cmyk_jpeg_has_the_pixels_of_pillow() -> None:
    content = encoded("CMYK", "JPEG")
    difference = decode(content).int() - as_pillow_has_it(content).int()
    assert difference.abs().max() <= 1


def test_the_name_of_a_file_does_not_say_what_it_is() -> None:
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
def test_a_truncated_image_is_corrupt(kind: str, part: float) -> None:
    content = encoded("RGB", kind)
    with pytest.raises(CorruptImage):
        decode(content[: int(part * len(content))])


@pytest.mark.filterwarnings("ignore::UserWarning")
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
