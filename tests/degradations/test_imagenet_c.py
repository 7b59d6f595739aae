"""ImageNet-C's corruptions beside the published code.

imagenet_c_facts.json has what the published code makes of `photograph()` at 224 pixels, for each severity: means by
channel, spread, and some pixels. It was computed once, with the packages imagenet-c 0.0.3 and, for what needs
ImageMagick there (motion blur, snow, frost), imagecorruptions 1.1.2, with OpenCV 5.0, SciPy 1.17 and scikit-image 0.26,
from the same random numbers as here. Impulse noise and frost draw in a way of their own: of these there are means
of many images.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from measures.oracles import NEEDED, ORACLES
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian

from accel_trainer.core.errors import UserError
from accel_trainer.degradations.imagenet_c.blurring import _one_round
from accel_trainer.degradations.imagenet_c.corruptions import BENCHMARK, EXTRA
from accel_trainer.degradations.imagenet_c.severity import PUBLISHED_SIZES, constants, published_size
from accel_trainer.degradations.keyed_numbers import KeyedNumbers
from accel_trainer.degradations.registry import find_degradations

FACTS = json.loads((Path(__file__).parent / "imagenet_c_facts.json").read_text())
# What ImageMagick rounds, the stand-in for it does not.
ROUNDED_LAYER = {"snow": 2}


def photograph(size: int = 224) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    blocks = 255 * ((x // 16 + y // 24) % 2) // (1 + (x > size // 2))
    image = np.stack([(x * x + 3 * y * y) // 64 % 256, np.abs((2 * x + y) % 160 - 80) * 3, blocks], axis=-1)
    for _ in range(3):
        image = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1))) // 4
    return image.astype(np.uint8)


PHOTOGRAPH = photograph()


def corrupted(name, severity, image=PHOTOGRAPH, image_id="a/1.png"):
    (found,) = find_degradations([f"imagenet-c/{name}"])
    return found.condition(severity).degrade(image, image_id)


def test_there_are_fifteen_and_four():
    assert len(BENCHMARK) == 15
    assert len(EXTRA) == 4
    assert [one.name for one in find_degradations(["imagenet-c"])] == [f"imagenet-c/{one}" for one in BENCHMARK | EXTRA]
    with pytest.raises(UserError, match="did you mean 'imagenet-c/fog'"):
        find_degradations(["imagenet-c/fogg"])


@pytest.mark.parametrize("name", sorted(set(FACTS) - {"impulse_noise", "frost"}))
def test_pixels_are_those_of_the_published_code(name):
    for severity, fact in enumerate(FACTS[name], 1):
        degraded = corrupted(name, severity)
        pixels = degraded[7::64, 5::63].reshape(-1, 3).astype(int)
        assert abs(pixels - fact["pixels"]).max() <= ROUNDED_LAYER.get(name, 1), (name, severity)
        assert degraded.mean(axis=(0, 1)) == pytest.approx(fact["mean"], abs=0.6), (name, severity)
        assert degraded.std() == pytest.approx(fact["spread"], rel=0.002), (name, severity)


@pytest.mark.parametrize(("name", "images", "tolerance"), [("impulse_noise", 4, 0.3), ("frost", 80, 14)])
def test_what_is_drawn_otherwise_has_the_mean_and_spread_of_the_published_code(name, images, tolerance):
    for severity, fact in enumerate(FACTS[name], 1):
        made = [corrupted(name, severity, image_id=str(number)) for number in range(images)]
        assert np.mean([one.mean(axis=(0, 1)) for one in made], axis=0) == pytest.approx(fact["mean"], abs=tolerance)
        assert np.mean([one.std() for one in made]) == pytest.approx(fact["spread"], rel=0.1)


@NEEDED
def test_constants_are_the_published_ones():
    published = json.loads((ORACLES / "facts" / "imagenet_c_severity.json").read_text())["by_image_size"]
    for size in PUBLISHED_SIZES:
        for name, rows in published[str(size)]["severity"].items():
            for severity, row in enumerate(rows, 1):
                own = constants(name, size, severity)
                if name == "zoom_blur":
                    (factors,) = row
                    assert own == pytest.approx((factors["stop_exclusive"], factors["step"]))
                    assert len(np.arange(1, *own)) == factors["count"]
                else:
                    assert own == pytest.approx(row), (size, name, severity)


def test_other_sizes_have_the_constants_of_the_nearest():
    sizes = (8, 32, 45, 46, 64, 119, 120, 224, 384)
    assert [published_size(size) for size in sizes] == [32, 32, 32, 64, 64, 64, 224, 224, 224]


@pytest.mark.parametrize(("size", "sigma", "gain", "scale"), [(32, 0.7, 0.4, 0.85), (64, 1.0, 0.2, 0.7)])
def test_small_images_have_constants_of_their_own(size, sigma, gain, scale):
    """By scikit-image and Pillow."""
    image = photograph(size)
    blurred = (np.clip(gaussian(image / 255, sigma, channel_axis=-1), 0, 1) * 255).astype(np.uint8)
    assert abs(corrupted("gaussian_blur", 3, image).astype(int) - blurred).max() <= 1
    means = image.mean(axis=(0, 1))
    assert abs(corrupted("contrast", 3, image) - ((image - means) * gain + means)).max() <= 1
    small = Image.fromarray(image).resize((int(size * scale),) * 2, Image.Resampling.BOX)
    assert (corrupted("pixelate", 3, image) == np.array(small.resize((size, size), Image.Resampling.BOX))).all()


def test_colors_of_gray_and_black_are_those_of_scikit_image():
    image = photograph(32)
    image[:8], image[8:16] = 0, 90
    values = rgb2hsv(image / 255)
    brighter, redder = values.copy(), values.copy()
    brighter[..., 2] = np.clip(values[..., 2] + 0.2, 0, 1)
    redder[..., 1] = np.clip(values[..., 1] * 2 + 0.1, 0, 1)
    assert abs(corrupted("brightness", 4, image) - hsv2rgb(brighter) * 255).max() <= 1.001
    degraded = corrupted("saturate", 4, image)
    assert abs(degraded - hsv2rgb(redder) * 255).max() <= 1.001
    assert degraded[10, 10].tolist() == [90, 81, 81]


def test_glass_moves_pixels_as_the_published_loop_does():
    size, reach = 16, 2
    numbers = KeyedNumbers(7)
    inside = range(reach + 1, size - reach + 1)
    down, right = numbers.integers("offsets", -reach, reach, (2, len(inside), len(inside)))
    image = np.arange(size * size).reshape(size, size)
    for row in reversed(inside):
        for column in reversed(inside):
            own = row - reach - 1, column - reach - 1
            image[row, column] = image[row + down[own], column + right[own]]
    assert (_one_round(size, reach, numbers, "offsets").reshape(size, size) == image).all()


@pytest.mark.parametrize("size", [1, 2, 5, 9, 33, 300])
def test_any_size_has_all_corruptions(size):
    image = photograph(size)
    for found in find_degradations(["imagenet-c"]):
        assert found.condition(5).degrade(image, "a").shape == image.shape, found.name
        assert found.condition(0).degrade(image, "a") is image


def test_a_black_image_and_a_white_one_have_no_holes():
    for value in (0, 255):
        flat = np.full((32, 32, 3), value, np.uint8)
        for found in find_degradations(["imagenet-c"]):
            with np.errstate(divide="raise", invalid="raise"):
                found.condition(3).degrade(flat, "a")
