"""Values of every kind of file, beside what torchvision, Pillow and numpy make of them."""

import io
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from odd_images import jpegs, png, smooth, tiff
from PIL import Image, features
from torchvision.transforms.v2 import functional

from accel_trainer.data import decode as decode_module
from accel_trainer.data.decode import CorruptImage, decode, to_pixels

RANDOM = np.random.default_rng(1)


def as_torchvision_scales(values: np.ndarray) -> np.ndarray:
    """uint8, by `to_dtype` with scale."""
    return functional.to_dtype(torch.from_numpy(values)[None], torch.uint8, scale=True)[0].numpy()


def gray_of(content: bytes) -> np.ndarray:
    pixels = decode(content).numpy()
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[0] == pixels[2]).all()
    return pixels[0]


# -- many bits -------------------------------------------------------------------------------------------------------


def test_a_tiff_of_signed_32_bits_has_the_scale_of_torchvision() -> None:
    values = RANDOM.integers(0, 2**31, (9, 7)).astype("<i4")
    np.testing.assert_array_equal(gray_of(tiff(values, kind=2)), as_torchvision_scales(values))


def test_a_tiff_of_unsigned_32_bits_keeps_its_highest_8() -> None:
    values = RANDOM.integers(0, 2**32, (9, 7)).astype("<u4")
    np.testing.assert_array_equal(gray_of(tiff(values)), values >> 24)


def test_a_tiff_of_fractions_has_the_scale_of_torchvision() -> None:
    values = np.append(RANDOM.random((9, 7)).astype("<f4"), np.linspace(0, 1, 256, dtype="<f4")[None, :7], axis=0)
    np.testing.assert_array_equal(gray_of(tiff(values, kind=3)), as_torchvision_scales(values))
    exact = np.arange(256, dtype="<f4")[None] / np.float32(255)
    np.testing.assert_array_equal(gray_of(tiff(exact, kind=3))[0], np.arange(256))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_bytes_that_were_widened_come_back_exactly(bits: int) -> None:
    """Whatever the rounding between them: 255 is white, and the same grays in all depths."""
    grays = np.arange(256, dtype=np.uint64)[None]
    wide = (grays * ((2**bits - 1) // 255)).astype(f"<u{bits // 8}")
    np.testing.assert_array_equal(gray_of(tiff(wide))[0], np.arange(256))
    if bits < 32:
        np.testing.assert_array_equal(gray_of(tiff(wide, white_is_zero=True))[0], np.arange(256)[::-1])
        np.testing.assert_array_equal(gray_of(png(wide[:, :, None]))[0], np.arange(256))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_for_each_channel_are_scaled_alike_in_gray_and_color(channels: int) -> None:
    values = RANDOM.integers(0, 65536, (9, 7, channels)).astype("<u2")
    files = [png(values)] if channels == 2 else [png(values), tiff(values.squeeze(2) if channels == 1 else values)]
    colors = values[:, :, [0, 0, 0]] if channels < 3 else values[:, :, :3]
    for content in files:
        pixels = decode(content).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(pixels - colors / 257).max() < 1.001
        exact = colors // 257 if channels == 1 else colors >> 8  # the high byte is what libpng and Pillow keep of color
        np.testing.assert_array_equal(pixels, exact)


def test_12_bits_are_white_at_4095_and_not_at_65535() -> None:
    values = np.array([[0, 4095, 2048, 16]])
    packed = bytes([0, 0x0F, 0xFF, 0x80, 0x00, 0x10])
    content = tiff(np.frombuffer(packed, np.uint8)[None], bits=12).replace(
        (6).to_bytes(4, "little"), (4).to_bytes(4, "little"), 1
    )
    with Image.open(io.BytesIO(content)) as image:
        assert np.asarray(image).tolist() == values.tolist()
    assert gray_of(content).tolist() == [[0, 255, 127, 0]]


def test_signed_16_bits_are_white_at_32767() -> None:
    values = RANDOM.integers(0, 2**15, (9, 7)).astype("<i2")
    difference = gray_of(tiff(values, kind=2)).astype(int) - as_torchvision_scales(values)
    assert set(np.unique(difference)) <= {-1, 0}


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        (np.full((2, 2), 255, "<u4"), 1, "its values reach 255, where white is 4,294,967,295: store it with 8 or 16"),
        (np.full((2, 2), 65535, "<i4"), 2, "its values reach 65535, where white is 2,147,483,647: store it with 8 or"),
        (np.full((2, 2), -3, "<i4"), 2, "its values begin at -3, and below 0 there is no gray"),
        (np.full((2, 2), -3, "<i2"), 2, "its values begin at -3, and below 0 there is no gray"),
        (np.full((2, 2), 200, "<f4"), 3, "its fractions are from 200 to 200, not from 0 to 1"),
        (np.full((2, 2), -0.1, "<f4"), 3, "its fractions are from -0.1 to -0.1"),
        (np.full((2, 2), np.nan, "<f4"), 3, "its fractions are from nan to nan"),
        (np.full((2, 2), 1e-4, "<f4"), 3, "its values reach 0.0001, where white is 1"),
        (np.full((2, 2), 0.5, "<f8"), 3, "a TIFF of a kind that is not read: store 8 or 16 bits for each channel"),
        (np.full((2, 2, 3), 0.5, "<f4"), 3, "a TIFF of a kind that is not read"),
    ],
)
def test_values_of_which_it_is_not_known_what_is_white_are_no_image(values: np.ndarray, kind: int, said: str) -> None:
    with pytest.raises(CorruptImage, match=said):
        decode(tiff(values, kind=kind))


def in_color(values: np.ndarray) -> dict[str, bytes]:
    """Files of 16 bits for each channel. values: (height, width, 4), the last also transparency or black."""

    def tifffiles(shape: slice, **how: object) -> bytes:
        file = io.BytesIO()
        tifffile.imwrite(file, values[:, :, shape], **how)
        return file.getvalue()

    opaque = values.copy()
    opaque[:, :, 3] = 65535
    rgb = slice(3)
    height, width, _ = values.shape
    return {
        "PNG": png(values[:, :, rgb]),
        "PNG with transparency": png(opaque),
        "PNG of gray with transparency": png(opaque[:, :, 2:]),
        "TIFF": tiff(values[:, :, rgb]),
        "TIFF with transparency": tiff(opaque),
        "TIFF with another channel": tifffiles(slice(4), photometric="rgb", extrasamples=["unspecified"]),
        "big-endian TIFF": tifffiles(rgb, photometric="rgb", byteorder=">"),
        "compressed TIFF": tifffiles(rgb, photometric="rgb", compression="zlib", predictor=True),
        "TIFF of tiles": tifffiles(rgb, photometric="rgb", tile=(16, 16)),
        "TIFF of inks": tifffiles(slice(4), photometric="separated"),
        "PPM": f"P6\n{width} {height}\n65535\n".encode() + values[:, :, rgb].astype(">u2").tobytes(),
    }


@pytest.mark.parametrize("kind", list(in_color(np.ones((2, 2, 4), "<u2"))))
def test_8_bit_values_in_colors_of_16_bits_are_no_image(kind: str) -> None:
    """Black, or white of inks, by the high bytes; what is really black, or has any high byte, is read."""
    bytes_in_16_bits = RANDOM.integers(1, 256, (9, 7, 4)).astype("<u2")
    bytes_in_16_bits[0, 0] = 255
    content = in_color(bytes_in_16_bits)[kind]
    said = "the values of its colors reach 255, where 16 bits reach 65,535: make it one of 8 bits"
    with pytest.raises(CorruptImage, match=said):
        decode(content)
    with Image.open(io.BytesIO(content)) as image, pytest.raises(CorruptImage, match=said):
        to_pixels(image)
    dark = bytes_in_16_bits.copy()
    dark[4, 3] = 1000
    assert decode(in_color(dark)[kind]).shape == (3, 9, 7)
    black = decode(in_color(np.zeros((9, 7, 4), "<u2"))[kind])
    assert (black == (255 if kind == "TIFF of inks" else 0)).all()


def test_channels_of_16_bits_in_planes_of_their_own_are_no_image() -> None:
    """Pillow takes each of their bytes for a value."""
    file = io.BytesIO()
    values = RANDOM.integers(0, 65536, (3, 9, 7)).astype("<u2")
    tifffile.imwrite(file, values, photometric="rgb", planarconfig="separate")
    with pytest.raises(CorruptImage, match="its channels of 16 bits are in planes of their own"):
        decode(file.getvalue())


@pytest.mark.parametrize("kind", ["<u4", "<u2", "<f4"])
def test_an_image_that_is_black_is_black_in_every_depth(kind: str) -> None:
    assert not decode(tiff(np.zeros((2, 3), kind), kind=3 if kind == "<f4" else 1)).any()


# -- colors, transparency, rotation, animation ------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(jpegs()))
def test_both_ways_of_decoding_a_jpeg_give_the_same_pixels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = jpegs()[name]
    fast = decode(content)
    monkeypatch.setattr(decode_module, "decode_jpeg", None)
    assert torch.equal(fast, decode(content))
    assert fast.shape == (3, 37, 53)  # rotation is not applied


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        saved(Image.fromarray(smooth()).quantize(40), "PNG", transparency=3),
        saved(Image.fromarray(smooth()).quantize(40), "PNG", transparency=bytes(range(40))),
        saved(Image.fromarray(smooth()).quantize(40), "GIF", transparency=3),
        saved(Image.fromarray(smooth()).convert("LA"), "PNG"),
        saved(Image.fromarray(smooth()).convert("RGBA"), "WEBP", lossless=True),
        saved(Image.fromarray(smooth()).convert("CMYK"), "TIFF"),
        saved(Image.fromarray(smooth()).convert("LAB"), "TIFF"),
        saved(Image.fromarray(smooth()).convert("1"), "BMP"),
    ],
    ids=["one color", "bytes", "GIF", "LA", "WEBP", "CMYK TIFF", "LAB TIFF", "1 bit"],
)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_palettes_and_transparency_have_the_colors_that_pillow_converts_to(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(content).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue", "lime")]
    how = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **how)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    assert decode(content)[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avif_has_the_pixels_of_pillow() -> None:
    content = saved(Image.fromarray(smooth()), "AVIF")
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(content).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\0\0\0\x18ftypheic" + bytes(40), "it is HEIC"), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is SVG")],
)
def test_images_of_kinds_that_are_not_read_are_named(content: bytes, said: str) -> None:
    with pytest.raises(CorruptImage, match=said):
        decode(content)


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (1, 1)])
def test_images_of_extreme_shapes_are_decoded(size: tuple[int, int]) -> None:
    assert decode(saved(Image.new("RGB", size, "red"), "PNG")).shape == (3, size[1], size[0])


def claiming(kind: str, side: int) -> bytes:
    """An image of one pixel that says that it has so many rows and columns: a true one takes long to be written."""
    content = bytearray(saved(Image.new("L", (1, 1)), kind))
    match kind:
        case "PNG":
            content[16:24] = struct.pack(">II", side, side)
            content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        case "GIF":  # the screen, and the image on it
            one = struct.pack("<HH", 1, 1)
            assert content.count(one) == 2
            content = content.replace(one, struct.pack("<HH", side, side))
        case "TIFF":
            (start,) = struct.unpack_from("<I", content, 4)
            (number,) = struct.unpack_from("<H", content, start)
            for place in range(start + 2, start + 2 + 12 * number, 12):
                if struct.unpack_from("<H", content, place)[0] in (256, 257):  # ImageWidth, ImageLength
                    struct.pack_into("<HII", content, place + 2, 4, 1, side)
    return bytes(content)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF"])
def test_an_image_of_30_000_by_30_000_pixels_is_refused_without_its_memory(kind: str) -> None:
    """It says so in a hundred bytes, and true ones have a few hundred kilobytes."""
    content = claiming(kind, 30_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptImage, match="decompression bomb"):
        decode(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


# -- the same from every source ---------------------------------------------------------------------------------------


def test_the_same_bytes_have_the_same_pixels_from_folder_table_and_pack(
    tmp_path: Path, make_job: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    from accel_trainer.data.open import open_data_set
    from accel_trainer.data.pack.split_writer import PackSettings
    from accel_trainer.data.pack.writer import pack

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    files = {
        **jpegs(),
        "16 bits": png(RANDOM.integers(0, 65536, (9, 7, 3)).astype("<u2")),
        "gray of 16 bits": png(RANDOM.integers(0, 65536, (9, 7, 1)).astype("<u2")),
        "32 bits": tiff(RANDOM.integers(0, 2**32, (9, 7)).astype("<u4")),
        "fractions": tiff(RANDOM.random((9, 7)).astype("<f4"), kind=3),
        "long": png(np.full((1, 60_000, 3), 7, np.uint8)),
        "one": png(np.full((1, 1, 3), 7, np.uint8)),
        "animated": saved(
            Image.new("RGB", (6, 4), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (6, 4))]
        ),
    }
    for split in ("train", "val"):
        for number, content in enumerate(files.values()):
            path = tmp_path / "set" / split / "ab"[number % 2] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    folder = open_data_set("set", tmp_path, None, None)
    pack(folder, "set", tmp_path / "set.pack", PackSettings(256, "raw"), 1, lambda done, total: None)
    packed = open_data_set("set.pack", tmp_path, None, None)
    table = open_data_set(f"hf:{tmp_path}/set", tmp_path, None, None)
    assert folder.train.labels.tolist() == packed.train.labels.tolist() == table.train.labels.tolist()
    for index in range(len(files)):
        pixels = folder.train.read(index)
        assert torch.equal(pixels, packed.train.read(index))
        assert torch.equal(pixels, table.train.read(index))
