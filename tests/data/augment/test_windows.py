"""Masks that are read and resized together are as they are one by one, with the kernel and without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from accel_trainer.config.augmentations import Occlusion
from accel_trainer.data.augment import geometry, windows
from accel_trainer.data.augment.occlusion import Occlude, Occluders
from accel_trainer.data.augment.windows import multiply_by_opacity, read_masks
from accel_trainer.data.native.library import kernel
from accel_trainer.data.rng.draws import Draws

SIZES = [1, 7, 45, 224]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of bytes and of floats, of one channel and of four, in tensors and in PNGs, of several sizes."""
    folder = tmp_path_factory.mktemp("occluders")
    bytes_of = np.random.default_rng(0).integers
    for name, shape in (("alpha", (5, 1, 64, 80)), ("painted", (4, 4, 61, 33)), ("floats", (3, 1, 40, 40))):
        pixels = torch.from_numpy(bytes_of(0, 256, shape, np.uint8))
        (folder / name / "50").mkdir(parents=True)
        torch.save(pixels / 255 if name == "floats" else pixels, folder / name / "50" / "occluders.pt")
    (folder / "png" / "50").mkdir(parents=True)
    for number in range(3):
        image = Image.fromarray(bytes_of(0, 256, (50, 50, 4), np.uint8))
        image.save(folder / "png" / "50" / f"{number}.png")
    return folder


def fetched(bank: Path, form: str | list[str], size: int, **given: Any) -> Occluders:
    section = Occlusion.model_validate({"occluder_dir": str(bank), "form": form, "probability": 0.8, **given})
    effect = Occlude(section, size, flips_with_crop=True)
    occluders = effect.fetch(effect.draw(Draws(0, 1, 0, np.arange(24))))
    assert 0 < len(occluders.rows) < 24
    return occluders


@pytest.fixture
def without_kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def leave_out() -> None:
        for module in (windows, geometry):
            monkeypatch.setattr(module, "kernel", lambda: None)

    return leave_out


@pytest.mark.parametrize("random_resize", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["alpha", "painted", "png", ["alpha", "painted", "floats", "png"]])
def test_occluders_have_the_same_bits_without_the_kernel(
    bank: Path, without_kernel: Callable[[], None], form: str | list[str], size: int, random_resize: bool
) -> None:
    if kernel() is None:
        pytest.skip("the kernel is not compiled")
    ours = fetched(bank, form, size, random_resize=random_resize)
    without_kernel()
    theirs = fetched(bank, form, size, random_resize=random_resize)
    assert torch.equal(ours.cover, theirs.cover)
    assert torch.equal(ours.textures, theirs.textures)
    assert np.array_equal(ours.textured, theirs.textured)


@pytest.mark.parametrize("form", ["alpha", "painted", "png", ["alpha", "painted"]])
def test_masks_of_files_are_read_by_the_kernel_as_one_by_one(
    bank: Path, monkeypatch: pytest.MonkeyPatch, form: str | list[str]
) -> None:
    if kernel() is None:
        pytest.skip("the kernel is not compiled")
    section = Occlusion.model_validate({"occluder_dir": str(bank), "form": form})
    levels = Occlude(section, 32).all_masks
    wanted = [(masks, index) for index in (2, 0, 2, 1) for masks in levels]
    expected = [masks.read(index).numpy() for masks, index in wanted]
    for masks in levels:
        monkeypatch.setattr(masks, "read", None)  # it is not called
    for mask, own in zip(read_masks(wanted), expected, strict=True):
        assert np.array_equal(mask, own)


def test_a_file_that_failed_is_read_mask_by_mask_which_opens_it_again(bank: Path) -> None:
    section = Occlusion.model_validate({"occluder_dir": str(bank), "form": "alpha"})
    (masks,) = Occlude(section, 32).all_masks
    place = masks.place(0)
    assert place is not None
    place.file.has_failed = True
    assert np.array_equal(read_masks([(masks, 3)])[0], masks.read(3).numpy())
    assert place.file.num_openings == 2


def test_floats_have_no_place_for_their_bytes(bank: Path) -> None:
    section = Occlusion.model_validate({"occluder_dir": str(bank), "form": "floats"})
    (masks,) = Occlude(section, 32).all_masks
    assert masks.place(0) is None


def test_every_color_of_every_opacity_is_their_rounded_product() -> None:
    color, opacity = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    mask = np.stack([color, color, color, opacity])
    multiply_by_opacity(mask)
    exact = np.rint(color.astype(np.float32) * (opacity.astype(np.float32) / np.float32(255)))
    assert np.array_equal(mask[:3], np.stack([exact] * 3))
    assert np.array_equal(mask[3], opacity)
