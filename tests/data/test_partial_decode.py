"""Parts of JPEGs have the bits of the whole, and what is not decoded in parts is decoded whole."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from accel_trainer.data import decode as decode_module
from accel_trainer.data import partial_decode
from accel_trainer.data.augment.geometry import CenterCrop, Crop, RandomResizedCrop
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.decode import CorruptImage, decode
from accel_trainer.data.loader import Batch, ImageReader
from accel_trainer.data.native.jpegs import JpegLibrary, Jpegs, cut_jpegs
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.partial_decode import PartialDecoder
from accel_trainer.data.rng.draws import DrawRules
from accel_trainer.data.sources.folders import ImageFolder
from accel_trainer.data.views import Augmentations, Views

HEIGHT, WIDTH = 96, 80


@pytest.fixture(scope="module")
def decoder(library: Path) -> PartialDecoder:
    """With the kernel of the source as it is."""
    kernel = Kernel(library)
    return PartialDecoder(kernel, JpegLibrary.used_by(kernel, partial_decode.extension()))


def jpeg(height: int = HEIGHT, width: int = WIDTH, mode: str = "RGB", **settings: object) -> bytes:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **{"quality": 60, **settings})
    return file.getvalue()


def square(decoder: PartialDecoder, content: bytes, top: int, left: int, side: int) -> torch.Tensor | None:
    """Its pixels; None where they are to be had by `decode` only."""
    as_it_is = np.array([[top, left, side, side, side, side, 0, 0, 0]], np.int64)
    out = torch.empty(1, 3, side, side, dtype=torch.uint8)
    is_done = cut_jpegs(decoder.kernel, decoder.library, Jpegs(decoder.kernel, [content]), as_it_is, out, None)
    return out[0] if is_done.all() else None


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "gray"])
@pytest.mark.parametrize("restart", [{}, {"restart_marker_blocks": 3}])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (61, 95), (17, 33), (5, 3), (1, 1)])
def test_a_part_of_a_jpeg_has_the_bits_of_the_whole(
    decoder: PartialDecoder, subsampling: str, restart: dict[str, int], size: tuple[int, int]
) -> None:
    """At every distance from the blocks that a JPEG is made of, whose colors depend on those beside them."""
    kind = {"mode": "L"} if subsampling == "gray" else {"subsampling": subsampling}
    content = jpeg(*size, **kind, **restart)
    whole, chance = decode(content), random.Random(0)
    for _ in range(60):
        side = chance.randint(1, min(size))
        top, left = chance.randint(0, size[0] - side), chance.randint(0, size[1] - side)
        part = square(decoder, content, top, left, side)
        assert part is not None
        assert torch.equal(part, whole[:, top : top + side, left : left + side])


@pytest.mark.parametrize(
    "content",
    [
        jpeg(progressive=True),
        jpeg(mode="CMYK"),
        jpeg()[:-2],
        jpeg()[:1000],
        b"",
        b"\xff\xd8\xff",
        b"no image",
        jpeg().replace(b"\xff\xd9", b"\xff\xda"),
    ],
)
def test_what_cannot_be_decoded_in_parts_is_left_to_others(decoder: PartialDecoder, content: bytes) -> None:
    assert square(decoder, content, 0, 0, 8) is None


def test_a_file_is_never_good_in_part_and_corrupt_or_different_as_a_whole(decoder: PartialDecoder) -> None:
    chance, num_good = random.Random(0), 0
    good = [jpeg(), jpeg(subsampling="4:4:4"), jpeg(restart_marker_blocks=3), jpeg(mode="L")]
    for _ in range(400):
        content = bytearray(chance.choice(good))
        match chance.randrange(3):
            case 0:
                del content[chance.randrange(len(content)) :]
            case 1:
                place = chance.randrange(len(content))
                content[place:place] = bytes([0xFF, chance.choice([0xD0, 0xD8, 0xD9, 0xDA, 0xC4])])
            case _:
                content[chance.randrange(len(content))] = chance.choice([0xFF, chance.randrange(256)])
        part = square(decoder, bytes(content), 20, 30, 24)
        if part is not None:
            num_good += 1
            assert torch.equal(part, decode(bytes(content))[:, 20:44, 30:54])
    assert 50 < num_good < 350


def test_an_image_that_claims_too_many_pixels_is_not_begun(
    decoder: PartialDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_decode, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    views = Views(Augmentations(CenterCrop(8)))
    drawn = views.draw(views.draws(plan(1), np.array([0])))
    assert not views.cut_jpegs(decoder, [jpeg()], drawn, views.empty(1)).any()


# -- in batches -------------------------------------------------------------------------------------------------------


def plan(number: int) -> BatchPlan:
    indices = np.arange(number)
    return BatchPlan(epoch=1, step=0, indices=indices, global_indices=indices)


FILES = {
    "a/0.jpg": jpeg(120, 90),
    "a/1.jpg": jpeg(64, 200, progressive=True),
    "a/2.jpg": jpeg(50, 1800),  # more than 32 times as long as wide
    "a/3.jpg": jpeg()[:2000],
    "a/4.png": b"",
    "b/5.jpg": jpeg(300, 240, mode="L"),
    "b/6.jpg": jpeg(30, 40, mode="CMYK"),
}


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    file = io.BytesIO()
    Image.new("RGB", (30, 40), (1, 2, 3)).save(file, "PNG")
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content or file.getvalue())
    return ImageFolder(tmp_path)


Read = Callable[[PartialDecoder | None], Batch]


@pytest.mark.parametrize("replace_corrupt", [True, False])
@pytest.mark.parametrize("crop", [RandomResizedCrop(24), CenterCrop(24), CenterCrop(64, share=1.0)])
@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("on_device", [True, False])
def test_batches_are_the_same_whether_jpegs_are_decoded_whole_or_not(
    decoder: PartialDecoder, folder: ImageFolder, crop: Crop, num_views: int, on_device: bool, replace_corrupt: bool
) -> None:
    """Of JPEGs of all kinds, a damaged one and other formats: pixels, and which are corrupt."""

    def read(with_decoder: PartialDecoder | None) -> Batch:
        views = Views(Augmentations(crop), DrawRules(num_views=num_views), on_device=on_device)
        reader = ImageReader(folder, views, replace_corrupt=replace_corrupt)
        reader.decoder = with_decoder
        return reader(plan(len(FILES)))

    ours, whole = read(decoder), read(None)
    assert torch.equal(ours.inputs.images, whole.inputs.images)
    assert ours.corrupt == whole.corrupt == {3}


def test_only_what_is_decoded_whole_is_given_to_the_whole_decoder(
    decoder: PartialDecoder, folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []

    def noted(content: bytes) -> torch.Tensor:
        given.append(content)
        return decode(content)

    monkeypatch.setattr("accel_trainer.data.source_reader.decode", noted)
    reader = ImageReader(folder, Views(Augmentations(RandomResizedCrop(24))), replace_corrupt=True)
    reader.decoder = decoder
    reader(plan(len(FILES)))
    assert FILES["a/0.jpg"] not in given
    assert FILES["a/1.jpg"] in given


# -- finding it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def found(decoder: PartialDecoder, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[PartialDecoder | None, str]]:
    monkeypatch.setattr(partial_decode.library, "kernel", lambda: decoder.kernel)
    return partial_decode.find


def test_it_is_found_in_what_torchvision_has_loaded(found: Callable[[], tuple[PartialDecoder | None, str]]) -> None:
    assert found()[0] is not None


def test_it_is_found_in_pillow_where_torchvision_decodes_nothing(
    found: Callable[[], tuple[PartialDecoder | None, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "decode_jpeg", None)
    assert found()[0] is not None


@pytest.mark.parametrize("failing", ["other pixels", "no library", "no kernel"])
def test_where_it_cannot_be_used_the_state_says_why(
    found: Callable[[], tuple[PartialDecoder | None, str]], monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    match failing:
        case "other pixels":
            monkeypatch.setattr(partial_decode, "decode", lambda content: 255 - decode(content))
        case "no library":
            import _ctypes

            monkeypatch.setattr(partial_decode, "extension", lambda: Path(_ctypes.__file__))
        case _:
            monkeypatch.setattr(partial_decode.library, "kernel", lambda: None)
            monkeypatch.setattr(partial_decode.library, "state", lambda: "not compiled")
    expected = {"other pixels": "other pixels", "no library": "has no libjpeg-turbo", "no kernel": "not compiled"}
    decoder, why = found()
    assert decoder is None
    assert expected[failing] in why


def test_a_corrupt_file_stays_corrupt(decoder: PartialDecoder) -> None:
    with pytest.raises(CorruptImage):
        decode(FILES["a/3.jpg"])
    assert square(decoder, FILES["a/3.jpg"], 0, 0, 4) is None
