"""Colours change as torchvision changes those of float images."""

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from accel_trainer.data.augment.color import ColorJitter, Grayscale, GrayscaleParameters, JitterParameters, luma
from accel_trainer.data.rng.draws import Draws

MANY = 20_000
UNLIKELY = 1e-4
THEIRS = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
NAMES = ["brightness", "contrast", "saturation", "hue"]
FACTORS = [0.0, 0.2, 0.5, 0.999, 1.0, 1.3, 1.8, 4.0]
TURNS = [-0.5, -0.2, -0.05, 0.0, 0.01, 0.1, 1 / 6, 0.2, 1 / 3, 0.5]


def pictures(count: int, height: int = 13, width: int = 9, seed: int = 0) -> torch.Tensor:
    """Random images, the contrast of some of them small."""
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    contrast = torch.linspace(1, 0.05, count).view(-1, 1, 1, 1)
    return images * contrast + 0.4 * (1 - contrast)


def of_bytes(count: int, seed: int = 0) -> torch.Tensor:
    """Images as they are decoded, with as few brightnesses that two channels are often equal."""
    values = np.random.default_rng(seed).integers(0, 6, (count, 3, 16, 16)) * 51
    return torch.from_numpy(values / 255).to(torch.float32)


def of_colour(red: float, green: float, blue: float) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float32).view(1, 3, 1, 1).repeat(1, 1, 4, 5)


IMAGES = {
    "random": pictures(4),
    "bytes": of_bytes(3),
    "grey": pictures(3)[:, :1].repeat(1, 3, 1, 1),
    "black": of_colour(0, 0, 0),
    "white": of_colour(1, 1, 1),
    "mid-grey": of_colour(0.5, 0.5, 0.5),
    "red": of_colour(1, 0, 0),
    "green": of_colour(0, 1, 0),
    "blue": of_colour(0, 0, 1),
    "yellow": of_colour(1, 1, 0),
    "cyan": of_colour(0, 1, 1),
    "magenta": of_colour(1, 0, 1),
    "dark red": of_colour(0.3, 0, 0),
    "one pixel": pictures(1, 1, 1),
}


def draws(count: int, **others: Any) -> Draws:
    return Draws(**{"seed": 3, "epoch": 1, "step": 0, "indices": np.arange(count), **others})


def adjusted(images: torch.Tensor, order: list[int], factors: list[float]) -> torch.Tensor:
    """What `apply` makes of a copy of the images, all with the same parameters."""
    rows = len(images)
    parameters = JitterParameters(np.tile(order, (rows, 1)), np.tile(factors, (rows, 1)))
    return ColorJitter().apply(images.clone(), parameters)


# -- adjustments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=NAMES)
def test_every_color_adjustment_equals_that_of_torchvision(which: int) -> None:
    for name, factor in product(IMAGES, TURNS if which == 3 else FACTORS):
        factors = [1.0, 1.0, 1.0, 0.0]
        factors[which] = factor
        found = adjusted(IMAGES[name], [which, -1, -1, -1], factors)
        expected = THEIRS[which](IMAGES[name], factor)
        difference = float((found - expected).abs().max())
        assert difference < 1e-5, (name, factor)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_adjustments_are_made_in_the_order_that_is_drawn(order: tuple[int, ...]) -> None:
    factors = [0.7, 1.6, 0.4, 0.15]
    expected = pictures(4)
    for which in order:
        expected = THEIRS[which](expected, factors[which])
    torch.testing.assert_close(adjusted(pictures(4), list(order), factors), expected, rtol=0, atol=1e-5)


def test_jitter_is_torchvisions_composition_of_what_is_drawn() -> None:
    jitter, images = ColorJitter(), torch.cat([pictures(60), of_bytes(1).expand(40, -1, -1, -1)[:, :, :13, :9]])
    drawn = jitter.draw(draws(100))
    found = jitter.apply(images.clone(), jitter.fetch(drawn))
    theirs = v2.ColorJitter(0.8, 0.8, 0.8, 0.2)
    assert 5 < (drawn.order[:, 0] < 0).sum() < 40
    for row in range(100):
        expected = images[row]
        if drawn.order[row, 0] >= 0:
            values = [f"{name}_factor" for name in NAMES]
            params = dict(zip(values, drawn.factors[row].tolist(), strict=True))
            expected = theirs.transform(expected, {"fn_idx": drawn.order[row].tolist(), **params})
            assert not torch.equal(found[row], images[row])
        else:
            assert torch.equal(found[row], images[row])
        torch.testing.assert_close(found[row], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (13, 9), (33, 32)])
def test_an_image_is_changed_the_same_whatever_else_is_in_the_batch(height: int, width: int) -> None:
    jitter, images = ColorJitter(), pictures(30, height, width)
    drawn = jitter.draw(draws(30))
    together = jitter.apply(images.clone(), drawn)
    for row in range(30):
        alone = jitter.apply(images[row : row + 1].clone(), drawn[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-6)


def test_no_images_give_no_adjusted_images() -> None:
    jitter, grey = ColorJitter(), Grayscale()
    assert jitter.apply(pictures(0), jitter.draw(draws(0))).shape == (0, 3, 13, 9)
    assert grey.apply(pictures(0), grey.draw(draws(0))).shape == (0, 3, 13, 9)


# -- what is drawn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.8, 0.0, 1.0])
def test_color_jitter_is_drawn_with_its_given_probability(probability: float) -> None:
    order = ColorJitter(probability=probability).draw(draws(MANY)).order
    changed = order[:, 0] >= 0
    assert (order[~changed] == -1).all()
    assert stats.binomtest(int(changed.sum()), MANY, probability).pvalue > UNLIKELY
    assert ColorJitter().probability == 0.8


def test_all_orders_of_the_adjustments_are_equally_frequent() -> None:
    order = ColorJitter().draw(draws(MANY)).order
    order = order[order[:, 0] >= 0]
    values, counts = np.unique(order, axis=0, return_counts=True)
    assert values.tolist() == [list(one) for one in permutations(range(4))]
    assert stats.chisquare(counts).pvalue > UNLIKELY


@pytest.mark.parametrize("strengths", [(0.8, 0.8, 0.8, 0.2), (0.4, 1.5, 0.0, 0.5)])
def test_factors_are_uniform_in_torchvisions_ranges(strengths: tuple[float, ...]) -> None:
    factors = ColorJitter(*strengths).draw(draws(MANY)).factors
    theirs = v2.ColorJitter(*strengths)
    for name, column in zip(NAMES, factors.T, strict=True):
        limits = getattr(theirs, name)
        if limits is None:  # no change
            assert (column == 1).all()
        else:
            low, high = limits
            assert stats.kstest(column, stats.uniform(low, high - low).cdf).pvalue > UNLIKELY, name
    varied = factors.T[np.ptp(factors, axis=0) > 0]
    assert np.abs(np.corrcoef(varied) - np.eye(len(varied))).max() < 0.03


@pytest.mark.parametrize("effect", [ColorJitter(), Grayscale(0.5)])
def test_the_jitter_of_an_image_is_independent_of_its_batch(effect: Any) -> None:
    batch = effect.draw(draws(20, num_views=2))
    for image in (0, 7, 19):
        alone = effect.draw(draws(0, indices=np.array([image]), num_views=2))
        for name, values in vars(alone).items():
            np.testing.assert_array_equal(values, getattr(batch, name)[2 * image : 2 * image + 2])


# -- grey -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_grayscale_equals_that_of_torchvision_v2(name: str) -> None:
    images = IMAGES[name]
    found = Grayscale().apply(images.clone(), GrayscaleParameters(np.ones(len(images), dtype=bool)))
    torch.testing.assert_close(found, tv.rgb_to_grayscale(images, num_output_channels=3), rtol=0, atol=1e-6)
    assert (found == found[:, :1]).all()
    torch.testing.assert_close(luma(images), tv.rgb_to_grayscale(images), rtol=0, atol=1e-6)


def test_only_the_images_that_are_drawn_become_grey() -> None:
    images, which = pictures(5), np.array([True, False, False, True, False])
    found = Grayscale().apply(images.clone(), GrayscaleParameters(which))
    assert torch.equal(found[~which], images[~which])
    torch.testing.assert_close(found[which], tv.rgb_to_grayscale(images[which], 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("probability", [0.2, 0.0, 1.0])
def test_grayscale_is_drawn_with_its_given_probability(probability: float) -> None:
    num_grey = int(Grayscale(probability).draw(draws(MANY)).is_gray.sum())
    assert stats.binomtest(num_grey, MANY, probability).pvalue > UNLIKELY
    assert Grayscale().probability == 0.2


def test_draws_of_grayscale_and_jitter_are_independent() -> None:
    is_grey, order = Grayscale().draw(draws(MANY)).is_gray, ColorJitter().draw(draws(MANY)).order
    counts = stats.contingency.crosstab(is_grey, order[:, 0]).count
    assert stats.chi2_contingency(counts).pvalue > UNLIKELY
