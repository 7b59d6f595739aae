"""Resizing, beside torchvision's and timm's own transforms."""

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from accel_trainer.data.augment.geometry import CenterCrop
from accel_trainer.data.augment.resizing import Filter, share_of, short_side_of

SHAPES = [(1, 1), (8, 8), (32, 32), (100, 333), (333, 100), (37, 500), (255, 257), (41, 50)]


def picture(height: int, width: int) -> Tensor:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def of_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("size", [1, 28, 97])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_bicubic_crops_are_torchvisions_of_images_of_pillow(height: int, width: int, size: int) -> None:
    image = picture(height, width)
    resize = v2.Resize(int(size / 0.875), InterpolationMode.BICUBIC, antialias=True)
    theirs = v2.functional.pil_to_tensor(v2.CenterCrop(size)(resize(of_pillow(image))))
    assert torch.equal(CenterCrop(size, 0.875, Filter.BICUBIC).crop(image), theirs)


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("share", [1.0, 0.9])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_bicubic_crops_are_timms_in_both_of_its_modes(height: int, width: int, share: float, mode: str) -> None:
    image = picture(height, width)
    transform = timm.data.create_transform(
        (3, 29, 29), interpolation="bicubic", crop_pct=share, crop_mode=mode, normalize=False
    )
    ours = CenterCrop(29, share, Filter.BICUBIC, squash=mode == "squash").crop(image)
    assert torch.equal(ours, transform(of_pillow(image)))


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (1, 60_000)])
def test_whole_images_are_squashed_bilinearly_too(height: int, width: int) -> None:
    image = picture(height, width)
    theirs = v2.CenterCrop(28)(v2.Resize((32, 32), antialias=True)(image))
    tolerance = 0 if "AVX" in torch.backends.cpu.get_cpu_capability() else 1
    torch.testing.assert_close(CenterCrop(28, squash=True).crop(image), theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [1, 28, 224, 299])
def test_a_share_is_found_for_every_side(size: int) -> None:
    for side in range(size, 3 * size):
        share = share_of(size, side)
        assert short_side_of(size, share) == int(size / share) == side
