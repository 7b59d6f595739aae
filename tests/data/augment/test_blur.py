"""Blur is torchvision's where torchvision can blur, and SciPy's where a kernel is larger than the image."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torchvision.transforms import v2

from accel_trainer.config.augmentations import Blur as BlurSection
from accel_trainer.data.augment.blur import (
    BlurParameters,
    ContrastiveBlur,
    FrameBlur,
    GaussianBlur,
    contrastive_radius,
    gaussian_blur,
)
from accel_trainer.data.rng.draws import Draws

MANY = 20_000
UNLIKELY = 1e-4
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (2, 33), (33, 33), (33, 20), (20, 41)]


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def draws(count: int, **others: Any) -> Draws:
    return Draws(**{"seed": 3, "epoch": 1, "step": 0, "indices": np.arange(count), **others})


def blurred(images: torch.Tensor, *sigmas: float) -> torch.Tensor:
    """What `apply` makes of a copy of the images."""
    return GaussianBlur([1.0], [1.0]).apply(images.clone(), BlurParameters(np.array(sigmas)))


def scipys(image: torch.Tensor, sigma: float, radius: int) -> torch.Tensor:
    """One image (3, height, width), correlated with the weights of a Gaussian along both axes, in float64."""
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    result = image.numpy().astype(np.float64)
    for axis in (1, 2):
        if result.shape[axis] > 1:  # where there is one pixel it is all that there is
            result = ndimage.correlate1d(result, weights, axis=axis, mode="mirror")
    return torch.from_numpy(result).to(torch.float32)


# -- pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1 / 3, 0.5, 1.0, 1.4, 2.0, 3.0, 5.0])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 16), (96, 96)])
def test_blur_is_torchvisions_with_three_sigmas_to_each_side(height: int, width: int, sigma: float) -> None:
    radius = math.ceil(3 * sigma)
    if radius >= min(height, width):
        return  # torchvision refuses: see the test against SciPy
    images = pictures(2, height, width)
    theirs = v2.functional.gaussian_blur(images, [2 * radius + 1] * 2, [sigma, sigma])
    torch.testing.assert_close(blurred(images, sigma, sigma), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 2.5, 8.0, 40.0])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_kernel_larger_than_the_image_meets_its_mirror_images(height: int, width: int, sigma: float) -> None:
    images = pictures(2, height, width)
    expected = torch.stack([scipys(image, sigma, math.ceil(3 * sigma)) for image in images])
    torch.testing.assert_close(blurred(images, sigma, sigma), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("radius", [0, 1, 2, 11, 50])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (12, 33)])
def test_a_given_radius_cuts_the_kernel(height: int, width: int, radius: int) -> None:
    images, sigmas = pictures(3, height, width), [0.1, 0.7, 2.0]
    expected = torch.stack([scipys(image, sigma, radius) for image, sigma in zip(images, sigmas, strict=True)])
    torch.testing.assert_close(gaussian_blur(images, np.array(sigmas), radius), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_sigma_0_leaves_an_image_as_it_is_to_the_bit(height: int, width: int) -> None:
    images = pictures(3, height, width)
    assert torch.equal(blurred(images, 0, 0, 0), images)
    some = blurred(images, 0, 3, 0)
    assert torch.equal(some[[0, 2]], images[[0, 2]])
    assert height == width == 1 or not torch.equal(some[1], images[1])


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_an_image_is_blurred_the_same_whatever_else_is_in_the_batch(height: int, width: int) -> None:
    images, sigmas = pictures(6, height, width), [2.0, 0.0, 0.3, 11.0, 1.0, 0.01]
    together = blurred(images, *sigmas)
    assert together.dtype == torch.float32
    for row, sigma in enumerate(sigmas):
        alone = blurred(images[row : row + 1], sigma)[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("brightness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_an_image_of_one_brightness_keeps_it(height: int, width: int, brightness: float) -> None:
    images = torch.full((4, 3, height, width), brightness)
    torch.testing.assert_close(blurred(images, 0.1, 1, 5, 60), images, rtol=0, atol=1e-6)


def test_no_images_give_no_blurred_images() -> None:
    assert blurred(pictures(0, 8, 8)).shape == (0, 3, 8, 8)


# -- what is drawn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigmas", "probs", "expected"),
    [
        ([1.0, 2.0, 4.0, 8.0], [0.6], {0.0: 0.4, 1.0: 0.15, 2.0: 0.15, 4.0: 0.15, 8.0: 0.15}),
        ([1.0, 2.0, 4.0], [1.0], {1.0: 1 / 3, 2.0: 1 / 3, 4.0: 1 / 3}),
        ([1.0, 2.0, 4.0], [0.1, 0.5, 0.2], {0.0: 0.2, 1.0: 0.1, 2.0: 0.5, 4.0: 0.2}),
        ([1.0, 2.0, 4.0], [0.3, 0.3, 0.4], {1.0: 0.3, 2.0: 0.3, 4.0: 0.4}),
        ([0.0, 2.0], [0.8], {0.0: 0.6, 2.0: 0.4}),
        ([2.0, 4.0], [0.0, 0.25], {0.0: 0.75, 4.0: 0.25}),
        ([2.0], [1.0], {2.0: 1.0}),
        ([2.0], [0.0], {0.0: 1.0}),
    ],
)
def test_each_sigma_is_drawn_with_its_given_probability(
    sigmas: list[float], probs: list[float], expected: dict[float, float]
) -> None:
    assert BlurSection(sigmas=sigmas, probs=probs).sigmas == sigmas  # a job file may say so
    values, counts = np.unique(GaussianBlur(sigmas, probs).draw(draws(MANY)).sigma, return_counts=True)
    assert values.tolist() == sorted(expected)
    if len(expected) > 1:
        shares = [MANY * expected[value] for value in values]
        assert stats.chisquare(counts, shares).pvalue > UNLIKELY


@pytest.mark.parametrize("probs", [[0.3], [1.0], [0.0], [0.1, 0.5, 1.0]])
def test_a_frame_of_a_clip_has_the_sigma_of_its_number(probs: list[float]) -> None:
    sigmas = [8.0, 3.0, 0.5]
    drawn = FrameBlur(sigmas, probs).draw(draws(MANY, num_views=3)).sigma.reshape(MANY, 3)
    for frame, (sigma, probability) in enumerate(zip(sigmas, probs * (3 // len(probs)), strict=True)):
        assert set(drawn[:, frame]) <= {0.0, sigma}
        num_blurred = int((drawn[:, frame] > 0).sum())
        assert stats.binomtest(num_blurred, MANY, probability).pvalue > UNLIKELY
    if probs == [0.3]:
        assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.03


def test_the_frames_of_a_clip_are_blurred_by_their_sigmas() -> None:
    sigmas = [2.0, 0.0, 0.7]
    blur, images = FrameBlur(sigmas, [1.0]), pictures(6, 16, 16)
    found = blur.apply(images.clone(), blur.fetch(blur.draw(draws(2, num_views=3))))
    expected = torch.stack(
        [
            scipys(image, sigma, math.ceil(3 * sigma)) if sigma else image
            for image, sigma in zip(images, 2 * sigmas, strict=True)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_contrastive_blur_has_any_sigma_from_a_tenth_to_two() -> None:
    sigma = ContrastiveBlur().draw(draws(MANY)).sigma
    assert stats.kstest(sigma, stats.uniform(0.1, 1.9).cdf).pvalue > UNLIKELY
    assert sigma.min() >= 0.1
    assert sigma.max() < 2


@pytest.mark.parametrize(("image_size", "kernel"), [(224, 23), (32, 5), (96, 11), (1, 3), (8, 3)])
def test_contrastive_blurs_kernel_is_a_tenth_of_the_image(image_size: int, kernel: int) -> None:
    assert 2 * contrastive_radius(image_size) + 1 == kernel


@pytest.mark.parametrize("size", [32, 224])
def test_contrastive_blur_equals_that_of_torchvision(size: int) -> None:
    blur, images = ContrastiveBlur(), pictures(3, size, size)
    drawn = blur.draw(draws(3))
    kernel = 23 if size == 224 else 5
    found = blur.apply(images.clone(), blur.fetch(drawn))
    for image, sigma, ours in zip(images, drawn.sigma.tolist(), found, strict=True):
        theirs = v2.functional.gaussian_blur(image, [kernel, kernel], [sigma, sigma])
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "blur", [GaussianBlur([1.0, 2.0, 3.0], [0.9]), FrameBlur([1.0, 2.0], [0.5]), ContrastiveBlur()]
)
def test_the_blur_of_an_image_is_independent_of_its_batch(blur: Any) -> None:
    batch = blur.draw(draws(20, num_views=2)).sigma.reshape(20, 2)
    for image in (0, 7, 19):
        alone = blur.draw(draws(0, indices=np.array([image]), num_views=2)).sigma
        np.testing.assert_array_equal(alone, batch[image])
