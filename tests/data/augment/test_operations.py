"""Operations done by tables and sums of whole numbers give the pixels that torchvision gives."""

from itertools import product

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from accel_trainer.data.augment.operations import GEOMETRIC, by_sources, operations_up_to

OPERATIONS = operations_up_to(
    InterpolationMode.NEAREST,
    shear=0.3,
    translation=150 / 331,
    relative=True,
    rotation=30.0,
    color_change=0.9,
    bits=(8, 4),
)


def pictures(height: int, width: int) -> list[torch.Tensor]:
    """Noise, noise as decoding lays it out, few levels, and one level."""
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    decoded = torch.from_numpy(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).permute(2, 0, 1)
    return [noise, decoded, noise // 100, torch.full_like(noise, 77)]


SIZES = [(1, 1), (2, 9), (3, 3), (17, 33), (40, 28)]


@pytest.mark.parametrize("name", GEOMETRIC)
def test_pixels_are_looked_up_where_they_are_moved_from(name: str) -> None:
    move = OPERATIONS[name].change
    for (height, width), magnitude in product(SIZES, (-3.7, -0.2, 0.0, 0.3, 5.0)):
        for image in pictures(height, width):
            before = image.clone()
            assert torch.equal(by_sources(move, image, magnitude), move(image, magnitude))
            assert torch.equal(image, before)


@pytest.mark.parametrize("size", SIZES)
def test_sharpness_rounds_sums_of_whole_numbers_as_a_convolution_is_rounded(size: tuple[int, int]) -> None:
    for image, magnitude in product(pictures(*size), np.linspace(-0.99, 0.99, 67).tolist()):
        expected = functional.adjust_sharpness(image, 1.0 + magnitude)
        assert torch.equal(OPERATIONS["Sharpness"].change(image, magnitude), expected)


def test_every_threshold_solarizes_as_torchvision_compares_it() -> None:
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    for magnitude in [*torch.linspace(1, 0, 31).tolist(), *(level / 255 for level in range(256))]:
        expected = functional.solarize(levels, 255 * magnitude)
        assert torch.equal(OPERATIONS["Solarize"].change(levels, magnitude), expected)


@pytest.mark.parametrize("size", [*SIZES, (64, 64)])
def test_a_table_equalizes_as_torchvision_does(size: tuple[int, int]) -> None:
    for image in pictures(*size):
        assert torch.equal(OPERATIONS["Equalize"].change(image, 0.0), functional.equalize(image))
