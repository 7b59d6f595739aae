"""The kernel gives the bits of Python and torch."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch

from accel_trainer.core import keyed_random
from accel_trainer.data.augment import geometry
from accel_trainer.data.augment.geometry import (
    CROP_NUMBERS,
    IMAGENET,
    CenterCrop,
    Crop,
    RandomResizedCrop,
    Statistics,
    cut,
)
from accel_trainer.data.native.calls import agrees_with_torch
from accel_trainer.data.native.images import Images
from accel_trainer.data.native.library import Kernel

SIDES = [*range(1, 40), 63, 64, 65, 100, 127, 224, 225, 300, 333, 447, 448, 449, 700]
Use = Callable[[Kernel | None], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    return lambda kernel: monkeypatch.setattr(geometry, "kernel", lambda: kernel)


def noise(height: int, width: int, *, two_tones: bool = False) -> torch.Tensor:
    values = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(values // 128 * 255 if two_tones else values).permute(2, 0, 1)


def rows(crop: Crop, images: list[torch.Tensor], views: int, statistics: Statistics | None) -> torch.Tensor:
    numbers = keyed_random.uniforms(keyed_random.key("cut"), range(len(images) * views), CROP_NUMBERS + 1)
    dtype = torch.uint8 if statistics is None else torch.float32
    out = torch.full((len(numbers), 3, crop.image_size, crop.image_size), 77, dtype=dtype)
    batch = Images.of(images)
    cut(batch, crop.cuts(batch, numbers), out, statistics)
    return out


@pytest.mark.parametrize("size", [1, 2, 7, 32, 65, 224])
def test_a_resize_has_torchs_bits(compiled: Kernel, use: Use, size: int) -> None:
    """Up and down, in one direction and in both, of single pixels too, and where every sum is an extreme."""
    crop = CenterCrop(size, share=1.0)
    images = [noise(side, 37, two_tones=bool(side % 2)) for side in SIDES] + [noise(37, side) for side in SIDES]
    images += [noise(side, side) for side in SIDES]
    use(None)
    expected = rows(crop, images, 1, None)
    use(compiled)
    assert torch.equal(rows(crop, images, 1, None), expected)


@pytest.mark.parametrize("statistics", [None, IMAGENET, Statistics((0.5, 0.1, 0.9), (1.0, 0.3, 0.01))])
@pytest.mark.parametrize(
    "crop", [CenterCrop(30), CenterCrop(64), RandomResizedCrop(30), RandomResizedCrop(56, (0.8, 1))]
)
def test_a_crop_has_the_same_bits(compiled: Kernel, use: Use, crop: Crop, statistics: Statistics | None) -> None:
    """Boxes, flips, windows and the roundings of floats, for several rows of each image."""
    sizes = [(40, 61), (61, 40), (90, 300), (30, 30), (1, 1), (1, 90), (2, 999), (999, 2), (480, 640)]
    images = [noise(*size) for size in sizes]
    use(None)
    expected = rows(crop, images, 5, statistics)
    use(compiled)
    assert torch.equal(rows(crop, images, 5, statistics), expected)


def test_boxes_are_the_same_for_many_numbers(compiled: Kernel, use: Use) -> None:
    crop, count = RandomResizedCrop(224), 3000
    numbers = keyed_random.uniforms(keyed_random.key("boxes"), range(count * 4), CROP_NUMBERS + 1)
    images = Images.of([noise(*size) for size in ((256, 341), (17, 1000), (500, 375), (1, 1))])
    use(None)
    expected = crop.cuts(images, numbers)
    use(compiled)
    assert np.array_equal(crop.cuts(images, numbers), expected)


@pytest.mark.parametrize(
    "layout",
    [
        lambda image: image.contiguous(),
        lambda image: image[:1].contiguous().expand(3, -1, -1),
        lambda image: image[:, 3:29, 5:31],
        lambda image: image.flip(0).contiguous().permute(0, 2, 1),
    ],
    ids=["planes", "gray", "a part", "transposed"],
)
def test_memory_may_be_laid_out_in_any_way(compiled: Kernel, use: Use, layout: Callable) -> None:
    images, crop = [layout(noise(40, 52))], RandomResizedCrop(33)
    use(None)
    expected = rows(crop, images, 4, IMAGENET)
    use(compiled)
    assert torch.equal(rows(crop, images, 4, IMAGENET), expected)


def test_nothing_is_written_beside_the_rows(compiled: Kernel, use: Use) -> None:
    """Where a row is no multiple of what a vector holds."""
    use(compiled)
    for size, dtype in ((9, torch.uint8), (9, torch.float32), (3, torch.uint8)):
        memory = torch.full((4, 3, size, size), 77, dtype=dtype)
        batch, crop = Images.of([noise(20, 20)]), CenterCrop(size)
        statistics = None if dtype == torch.uint8 else IMAGENET
        cut(batch, crop.cuts(batch, np.empty((2, 0))), memory[1:3], statistics)
        assert (memory[[0, 3]] == 77).all()
        assert not (memory[1:3] == 77).all()


def test_a_kernel_of_other_bits_is_found_out(compiled: Kernel) -> None:
    assert agrees_with_torch(compiled)
    real = compiled.cut

    def one_off(*arguments: int) -> int:
        result: int = real(*arguments)
        ctypes.memset(arguments[6], 1, 1)
        return result

    compiled.cut = one_off
    assert not agrees_with_torch(compiled)
