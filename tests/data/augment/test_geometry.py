import resource

import numpy as np
import pytest
import torch
from cutting import cut_one
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_images
from torchvision.transforms import v2

from accel_trainer.core import keyed_random
from accel_trainer.data.augment.geometry import (
    CROP_NUMBERS,
    CROP_TRIES,
    CenterCrop,
    RandomResizedCrop,
    crop_box,
    normalize,
    normalized,
    pixels_of,
)
from accel_trainer.data.native.images import Images
from accel_trainer.data.rng.draws import Draws

SHAPES = [
    (1, 1), (8, 8), (224, 224), (256, 256), (223, 225), (100, 333), (333, 100), (37, 500), (500, 37), (1, 60),
    (255, 257), (257, 255), (480, 640), (31, 32),
]  # fmt: skip
UNLIKELY = 1e-4


def draws(*indices: int) -> Draws:
    return Draws(seed=3, epoch=1, step=0, indices=np.array(indices))


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A noisy picture in the memory layout that decoding gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


# -- centre crop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 32, 97, 224])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_centre_crop_is_torchvisions_to_the_bit(height: int, width: int, size: int) -> None:
    image, ours = picture(height, width), CenterCrop(size)
    theirs = v2.Compose([v2.Resize(int(size * 256 / 224), antialias=True), v2.CenterCrop(size)])
    cropped = cut_one(ours, image, ours.draw(draws(0, 1))[0])
    assert cropped.dtype == torch.uint8
    assert cropped.shape == (3, size, size)
    # Where the processor has no AVX2, torchvision resizes in floating point.
    tolerance = 0 if "AVX" in torch.backends.cpu.get_cpu_capability() else 1
    torch.testing.assert_close(cropped, theirs(image), rtol=0, atol=tolerance)


# -- random resized crop ----------------------------------------------------------------------------------------


def boxes(height: int, width: int, count: int, scale: tuple[float, float] = (0.08, 1.0)) -> np.ndarray:
    """(top, left, height, width) of as many crops."""
    numbers = keyed_random.uniforms(keyed_random.key("boxes"), range(count), 2 * CROP_TRIES + 2)
    return np.array([crop_box(height, width, row, scale) for row in numbers])


def torchvisions_boxes(height: int, width: int, count: int, scale: tuple[float, float] = (0.08, 1.0)) -> np.ndarray:
    crop = v2.RandomResizedCrop(1, scale=scale)
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [crop.make_params([image]) for _ in range(count)]
    return np.array([[params[key] for key in ("top", "left", "height", "width")] for params in drawn])


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.8, 1.0)])
@pytest.mark.parametrize(("height", "width"), [(400, 400), (300, 500), (500, 300)])
def test_random_crops_are_distributed_as_in_torchvision(height: int, width: int, scale: tuple[float, float]) -> None:
    ours, theirs = (draw(height, width, 3000, scale) for draw in (boxes, torchvisions_boxes))
    measures = {
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "bottom": lambda box: box[:, 0] + box[:, 2],
        "right": lambda box: box[:, 1] + box[:, 3],
    }
    for name, measure in measures.items():
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > UNLIKELY, name


def test_areas_and_ratios_keep_to_their_limits() -> None:
    _, _, height, width = boxes(1000, 1000, 2000).T
    area, ratio = height * width / 1e6, width / height
    assert 0.079 < area.min() < 0.09
    assert 0.95 < area.max() <= 1
    assert 0.745 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.34


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (1, 2), (2, 1), (3000, 1), (1, 3000)])
def test_a_crop_is_never_empty_and_always_inside(height: int, width: int) -> None:
    top, left, h, w = boxes(height, width, 300).T
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-53])
def test_a_crop_is_inside_for_the_smallest_and_the_largest_numbers(number: float) -> None:
    top, left, h, w = crop_box(100, 101, [number] * (2 * CROP_TRIES + 2))
    assert 0 <= top <= 100 - h
    assert 0 <= left <= 101 - w


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 3)])
def test_where_no_crop_fits_the_centre_is_taken_as_torchvision_does(height: int, width: int) -> None:
    whole = (1.0, 1.0)  # of an image so long, in a ratio so square: impossible
    assert set(map(tuple, boxes(height, width, 20, whole))) == set(
        map(tuple, torchvisions_boxes(height, width, 20, whole))
    )


def test_a_crop_has_the_pixels_of_its_box_resized() -> None:
    image, crop = picture(50, 70), RandomResizedCrop(24)
    for numbers in crop.draw(draws(*range(20))):
        top, left, height, width = crop_box(50, 70, numbers[:-1])
        expected = v2.functional.resized_crop(image, top, left, height, width, [24, 24], antialias=True)
        if numbers[-1] < 0.5:
            expected = v2.functional.horizontal_flip(expected)
        torch.testing.assert_close(cut_one(crop, image, numbers), expected, rtol=0, atol=1)


def test_half_of_the_images_are_flipped() -> None:
    numbers = RandomResizedCrop(24).draw(draws(*range(4000)))
    assert stats.binomtest(int((numbers[:, -1] < 0.5).sum()), 4000).pvalue > UNLIKELY


# -- the rest ---------------------------------------------------------------------------------------------------


def test_normalization_equals_that_of_torchvision_v2() -> None:
    images = picture(9, 11)[None].repeat(2, 1, 1, 1)
    theirs = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    ours = normalize(images / 255)
    torch.testing.assert_close(ours, theirs(images), rtol=1e-6, atol=1e-6)
    assert torch.equal(pixels_of(ours), images)
    torch.testing.assert_close(normalized(images), ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_a_random_crop_of_a_photograph_has_the_pixels_of_pillow(which: int) -> None:
    """Pillow's antialiased bilinear, within a tenth of a grey level."""
    pixels = load_sample_images().images[which].copy()  # writable, as torch wants its arrays
    crop = RandomResizedCrop(224)
    differences = []
    for numbers in crop.draw(draws(*range(24))):
        ours = cut_one(crop, torch.from_numpy(pixels).permute(2, 0, 1), numbers)
        top, left, height, width = crop_box(*pixels.shape[:2], numbers[:-1])
        cut = Image.fromarray(pixels).crop((left, top, left + width, top + height))
        theirs = torch.from_numpy(np.array(cut.resize((224, 224), Image.Resampling.BILINEAR))).permute(2, 0, 1)
        theirs = theirs.flip(-1) if numbers[-1] < 0.5 else theirs
        differences.append((ours.to(torch.float32) - theirs).abs().mean().item())
    assert 0 < np.mean(differences) < 0.1


# -- extreme shapes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 3000), (3001, 1), (2, 3000), (4, 1001), (3, 500), (500, 7), (1, 33)])
def test_the_middle_of_a_long_image_is_what_torchvision_gives_of_the_whole(size: tuple[int, int]) -> None:
    """Exactly where the factor is whole; else half a pixel of the result may be between them."""
    noise = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    image = torch.from_numpy(noise)
    whole = v2.Compose([v2.Resize(int(16 * 256 / 224), antialias=True), v2.CenterCrop(16)])(image)
    cropped = CenterCrop(16).crop(image)
    if int(16 * 256 / 224) % min(size) == 0:
        assert torch.equal(cropped, whole)
    else:
        across = torch.linspace(0, 40, max(size)).reshape(1, -1, 1).sin().mul(100).add(128).byte()
        smooth = (across if size[0] > size[1] else across.transpose(1, 2)).expand(3, *size).contiguous()
        whole = v2.Compose([v2.Resize(int(16 * 256 / 224), antialias=True), v2.CenterCrop(16)])(smooth)
        assert (CenterCrop(16).crop(smooth).float() - whole.float()).abs().max() <= 4


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (1, 1)])
def test_crops_of_extreme_shapes_take_no_more_memory_than_others(size: tuple[int, int]) -> None:
    image = torch.full((3, *size), 9, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (CenterCrop(224).crop(image) == 9).all()
    crop = RandomResizedCrop(224)
    assert (cut_one(crop, image, np.full(CROP_NUMBERS + 1, 0.3)) == 9).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_the_centers_of_many_images_are_those_of_each() -> None:
    """By the same rules in Python's own numbers, of any two sides."""
    generator = np.random.default_rng(0)
    sides = generator.integers(1, 400, (3000, 2)) * generator.choice([1, 7, 300], (3000, 2))
    sides = np.vstack([sides, [[1, 32], [32, 1], [1, 33], [34, 1], [60_000, 1], [2, 2], [375, 500]]]).astype(np.int64)
    table = np.zeros((len(sides), 6), np.int64)
    table[:, 4:] = sides
    for crop in (CenterCrop(224), CenterCrop(33, 224 / 232), CenterCrop(1, 1.0)):
        cuts = crop.cuts(Images(table, None), np.empty((2 * len(sides), 0)))
        assert np.array_equal(cuts[::2], cuts[1::2])
        for (height, width), found in zip(sides.tolist(), cuts[::2].tolist(), strict=True):
            top, left, h, w = 0, 0, height, width
            if max(height, width) > 32 * min(height, width):
                long, short = max(height, width), min(height, width)
                length = 3 * short + (long - 3 * short) % 2
                top, left, h, w = (
                    ((long - length) // 2, 0, length, width)
                    if height > width
                    else (0, (long - length) // 2, height, length)
                )
            long_side = int(crop.short_side * max(h, w) / min(h, w))
            resized = (crop.short_side, long_side) if h <= w else (long_side, crop.short_side)
            window = [round((side - crop.image_size) / 2) for side in resized]
            assert found == [top, left, h, w, *resized, *window, 0]
