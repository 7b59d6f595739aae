"""Boxes are torchvision's in distribution; what is in them is what was asked for."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from accel_trainer.data.augment.erase import RandomErase
from accel_trainer.data.rng.draws import Draws
from accel_trainer.data.rng.random_fields import RandomField, normal_field, uniform_field

MANY = 20_000
UNLIKELY = 1e-4
VALUES = pytest.mark.parametrize("value", [0, 0.0, -2.5, 1.0, [0.1, -0.6, 2.9], "random"])


def pictures(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Above 7, so that no pixel is by chance what it is filled with."""
    return 7 + torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def draws(count: int, **others: Any) -> Draws:
    return Draws(**{"seed": 3, "epoch": 1, "step": 0, "indices": np.arange(count), **others})


Boxes = npt.NDArray[np.int64]


def sized(box: Boxes) -> Boxes:
    """(top, left, height, width) of boxes, each of which is (top, bottom, left, right)."""
    top, bottom, left, right = box.T
    return np.stack([top, left, bottom - top, right - left], axis=1)


def boxes(size: int, count: int) -> Boxes:
    """(top, left, height, width) of those of as many images that are erased."""
    box = sized(RandomErase(size, 0.0).draw(draws(count)).box)
    return box[box[:, 2] > 0]


def torchvisions_boxes(size: int, count: int) -> Boxes:
    erase, image = v2.RandomErasing(), torch.empty(3, size, size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [erase.make_params([image]) for _ in range(count)]
    return np.array([[params[key] for key in "ijhw"] for params in drawn if params["v"] is not None])


# -- boxes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [224, 97, 32])
def test_erased_boxes_are_distributed_as_in_torchvision(size: int) -> None:
    ours, theirs = boxes(size, 6000), torchvisions_boxes(size, 3000)
    measures = {
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 2] / box[:, 3],
        "height": lambda box: box[:, 2],
        "width": lambda box: box[:, 3],
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "bottom": lambda box: box[:, 0] + box[:, 2],
        "right": lambda box: box[:, 1] + box[:, 3],
    }
    for name, measure in measures.items():
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > UNLIKELY, name


def test_areas_and_ratios_keep_to_their_limits() -> None:
    _, _, height, width = boxes(1000, MANY).T
    area, ratio = height * width / 1e6, height / width
    assert 0.0195 < area.min() < 0.021
    assert 0.328 < area.max() < 0.331
    assert 0.298 < ratio.min() < 0.302
    assert 3.28 < ratio.max() < 3.32


@pytest.mark.parametrize("size", [7, 32, 224])
def test_half_of_the_images_are_erased(size: int) -> None:
    assert stats.binomtest(len(boxes(size, MANY)), MANY).pvalue > UNLIKELY


def test_erasing_is_independent_of_the_box_and_of_neighboring_images() -> None:
    is_erased = RandomErase(224, 0.0).draw(draws(MANY)).box.any(axis=1)
    counts = stats.contingency.crosstab(is_erased[1:], is_erased[:-1]).count
    assert stats.chi2_contingency(counts).pvalue > UNLIKELY
    top, left, height, width = boxes(224, MANY).T
    assert abs(stats.spearmanr(top / (225 - height), left / (225 - width)).statistic) < 0.04
    assert abs(stats.spearmanr(top / (225 - height), height * width).statistic) < 0.04


@pytest.mark.parametrize("size", [*range(1, 13), 31, 224])
def test_boxes_are_always_inside_and_never_the_whole_image(size: int) -> None:
    top, left, height, width = sized(RandomErase(size, 0.0).draw(draws(3000)).box).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size).all()
    assert (left + width <= size).all()
    assert ((height < size) & (width < size)).all()


class Same:
    """Draws of one number only."""

    def __init__(self, number: float) -> None:
        self.number = number

    def uniforms(self, purpose: str, count: int) -> npt.NDArray[np.float64]:
        numbers = np.full((1, count), self.number)
        numbers[:, -1] = 0.0  # erased
        return numbers

    def keys(self, purpose: str) -> npt.NDArray[np.uint64]:
        return np.zeros(1, dtype=np.uint64)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 224])
@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-53])
def test_a_box_is_inside_for_the_smallest_and_the_largest_numbers(number: float, size: int) -> None:
    top, left, height, width = sized(RandomErase(size, 0.0).draw(Same(number)).box)[0]  # type: ignore[arg-type]
    assert 0 <= top <= size - height
    assert 0 <= left <= size - width


# -- pixels -----------------------------------------------------------------------------------------------------


@VALUES
@pytest.mark.parametrize("size", [1, 2, 3, 24])
def test_only_the_pixels_in_the_box_are_changed(size: int, value: Any) -> None:
    images, erase = pictures(60, size), RandomErase(size, value)
    drawn = erase.draw(draws(60))
    found = erase.apply(images.clone(), erase.fetch(drawn))
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    num_erased = 0
    for image, original, (top, left, height, width) in zip(found, images, sized(drawn.box).tolist(), strict=True):
        inside = torch.zeros(size, size, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert torch.equal(image[:, ~inside], original[:, ~inside])
        num_erased += height > 0
        if value == "random":
            assert (image[:, inside].abs() < 6).all()
            assert len(image[:, inside].unique()) == 3 * height * width
        else:
            colour = torch.tensor(value if isinstance(value, list) else [value] * 3, dtype=torch.float32)
            assert torch.equal(image[:, inside], colour[:, None].expand(3, height * width))
    assert size == 1 or 15 < num_erased < 45


@pytest.mark.parametrize("value", [0.5, [0.1, 0.6, 0.9]])
def test_an_erased_image_equals_that_of_torchvision(value: Any) -> None:
    images, erase = pictures(30, 24), RandomErase(24, value)
    drawn = erase.draw(draws(30))
    found = erase.apply(images.clone(), drawn)
    colour = torch.tensor(value if isinstance(value, list) else [value]).view(-1, 1, 1)
    for image, original, box in zip(found, images, sized(drawn.box).tolist(), strict=True):
        assert torch.equal(image, v2.functional.erase(original, *box, colour))


@pytest.mark.parametrize(("field", "distribution"), [(normal_field, "norm"), (uniform_field, "uniform")])
def test_random_pixels_are_of_their_distribution_and_independent_in_channels(
    field: RandomField, distribution: str
) -> None:
    """Normal ones, as torchvision's; by the first rules uniform ones."""
    erase = RandomErase(64, "random", field)
    found = erase.apply(pictures(100, 64), erase.draw(draws(100)))
    filled = found.permute(1, 0, 2, 3)[:, found[:, 0] < 6].to(torch.float64).numpy()
    assert filled.shape[1] > 20_000
    for channel in filled:
        assert stats.kstest(channel, distribution).pvalue > UNLIKELY
    off = np.corrcoef(filled) - np.eye(3)
    assert np.abs(off).max() < 4 / filled.shape[1] ** 0.5


def test_random_pixels_differ_by_image_and_are_the_same_for_the_same_key() -> None:
    erase = RandomErase(24, "random")
    drawn = erase.draw(draws(200))
    rows = np.flatnonzero(drawn.box.any(axis=1))[[0, 1, 1]]
    same_box = type(drawn)(np.tile([3, 13, 4, 15], (3, 1)), drawn.key[rows])
    found = erase.apply(pictures(3, 24), same_box)[:, :, 3:13, 4:15]
    assert torch.equal(found[1], found[2])
    assert not torch.isin(found[0], found[1]).any()


@VALUES
def test_an_image_is_erased_the_same_whatever_else_is_in_the_batch(value: Any) -> None:
    images, erase = pictures(20, 24), RandomErase(24, value)
    drawn = erase.draw(draws(10, num_views=2))
    together = erase.apply(images.clone(), drawn)
    for image in range(10):
        alone = erase.draw(draws(0, indices=np.array([image]), num_views=2))
        rows = slice(2 * image, 2 * image + 2)
        np.testing.assert_array_equal(alone.box, drawn.box[rows])
        assert torch.equal(erase.apply(images[rows].clone(), alone), together[rows])


def test_no_images_give_no_erased_images() -> None:
    erase = RandomErase(24, "random")
    assert erase.apply(pictures(0, 24), erase.draw(draws(0))).shape == (0, 3, 24, 24)
