"""Degraded images follow from image, level and key alone."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2gray

from accel_trainer.core.errors import UserError
from accel_trainer.data.occluders.bank import OTHER_NAMES
from accel_trainer.data.occluders.synthetic import FORMS, TODAYS_FORMS, make_occluders
from accel_trainer.degradations.degradation import NONE, degrade_by_each
from accel_trainer.degradations.registry import Resources, find_degradations

SIZE = 32
DIGEST = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_degradations as tests
print(tests.digest(tests.all_conditions(Path(sys.argv[3])), int(sys.argv[4])))
"""


def photograph() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    image = np.stack([128 + 100 * np.sin(7 * x + 3 * y), 255 * y, 200 * (x > y)], axis=-1).astype(np.uint8)
    image.flags.writeable = False
    return image


def all_conditions(folder):
    names = ["noise", "blur", "geirhos", "imagenet-c", "occlusion/mud_splash", "occlusion/natural"]
    return [one for found in find_degradations(names, Resources(folder)) for one in found.conditions()]


def digest(conditions, threads):
    with ThreadPoolExecutor(threads) as pool:
        images = list(pool.map(lambda one: one.degrade(photograph(), "a/1.png"), conditions))
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()


@pytest.fixture(scope="module")
def occluders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("occluders")
    make_occluders(folder, ["mud_splash", "natural"], [20, 60], number=3, size=40, report=lambda line: None)
    return folder


def one(name, level, image_id="a/1.png", **resources):
    (found,) = find_degradations([name], Resources(**resources))
    return found.condition(level).degrade(photograph(), image_id)


def test_the_neutral_level_is_the_image_itself_and_all_others_are_not(occluders):
    image = photograph()
    for condition, degraded in degrade_by_each(image, all_conditions(occluders), "a/1.png"):
        assert (degraded is image) == condition.is_neutral
        assert degraded.shape == image.shape
        assert degraded.dtype == np.uint8
        if not condition.is_neutral:
            assert (degraded != image).any(), condition.name
        assert condition.degradation.condition(NONE).degrade(image, "a/1.png") is image


def test_pixels_are_the_same_on_any_number_of_threads_and_processes(occluders):
    torch_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = digest(all_conditions(occluders), 1)
        torch.set_num_threads(3)
        assert digest(list(reversed(all_conditions(occluders)))[::-1], 4) == alone
    finally:
        torch.set_num_threads(torch_threads)
    here = __file__.rpartition("/")[0]
    command = [sys.executable, "-c", DIGEST, "2", here, str(occluders), "2"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == alone


def test_an_image_has_numbers_of_its_own(occluders):
    for name, level in (("noise/gaussian", 0.5), ("noise/fourier", 0.5), ("geirhos/uniform-noise", 0.2)):
        assert (one(name, level, "a/1.png") != one(name, level, "a/2.png")).mean() > 0.3


def test_noise_has_the_mean_and_spread_that_its_ratio_says():
    gray = np.full((256, 256, 3), 128, np.uint8)
    for ssnr in (0.8, 0.2):
        (found,) = find_degradations(["noise/gaussian"])
        noisy = found.condition(ssnr).degrade(gray, "gray") / 255
        assert noisy.mean() == pytest.approx(0.5, abs=0.003)
        # A little is cut off at black and white.
        assert noisy.std() == pytest.approx((1 - ssnr) / 6, rel=0.02)


@pytest.mark.parametrize(("visibility", "tolerance"), [(0.2, 0.15), (0.6, 0.15)])
def test_an_occluder_leaves_what_its_visibility_says(occluders, visibility, tolerance):
    shown = [
        (one("occlusion/mud_splash", visibility, str(i), occluder_dir=occluders) == photograph()).all(-1).mean()
        for i in range(12)
    ]
    assert np.mean(shown) == pytest.approx(visibility, abs=tolerance)


def test_all_forms_are_found_by_all_their_names(tmp_path):
    make_occluders(tmp_path, list(TODAYS_FORMS), [50], number=1, size=16, report=lambda line: None)
    names = [f"occlusion/{form}" for form in FORMS]
    assert [found.name for found in find_degradations(names, Resources(tmp_path))] == names
    assert len(find_degradations(["occlusion"], Resources(tmp_path))) == 32


@pytest.mark.parametrize("older", ["mudSplash", "barHorz02", "rectangles_filled"])
def test_a_form_has_the_same_pixels_by_its_older_name(tmp_path, older):
    make_occluders(tmp_path, [OTHER_NAMES[older]], [20], number=3, size=40, report=lambda line: None)
    new, old = (one(f"occlusion/{name}", 0.2, occluder_dir=tmp_path) for name in (OTHER_NAMES[older], older))
    assert (new == old).all()


def test_a_mask_is_cropped_at_its_center(occluders):
    masks = torch.load(occluders / "natural/60/occluders.pt", weights_only=True)
    # A window of 35 of 40 pixels, resized to the image: at 35 pixels it is the mask's own.
    (found,) = find_degradations(["occlusion/natural"], Resources(occluders))
    degraded = found.condition(0.6).degrade(np.zeros((35, 35, 3), np.uint8), "a")
    opacity = masks[:, 3:, 3:38, 3:38].to(torch.float32) / 255
    candidates = (masks[:, :3, 3:38, 3:38] * opacity).permute(0, 2, 3, 1).numpy()
    assert min(abs(mask - degraded).max() for mask in candidates) <= 1


def test_parametric_degradations_are_those_of_the_study():
    """By scikit-image's gray and SciPy's filter, with the formulas of the study; to 1 of 255."""
    gray, size = rgb2gray(photograph()), SIZE
    blurred = ndimage.gaussian_filter(gray, 3, mode="constant", cval=0.4423)
    high = gray - ndimage.gaussian_filter(gray, 1.5, mode="constant", cval=0.4423)
    expected = {
        ("geirhos/colour", 1): gray,
        ("geirhos/contrast", 0.1): 0.45 + 0.1 * gray,
        ("geirhos/uniform-noise", 0): 0.35 + 0.3 * gray,
        ("geirhos/low-pass", 0): gray,
        ("geirhos/low-pass", 3): blurred,
        ("geirhos/high-pass", np.inf): gray,
        ("geirhos/high-pass", 1.5): high + 0.4423 - high.mean(),
        ("geirhos/phase-scrambling", 0): gray,
        ("geirhos/rotation", 90): gray.T[::-1],
        ("geirhos/rotation", 270): gray[::-1].T,
    }
    for (name, level), values in expected.items():
        degraded = one(name, level).astype(int)
        assert abs(degraded - np.clip(values, 0, 1).reshape(size, size, 1) * 255).max() <= 1, (name, level)


def test_opponent_colors_of_grays_are_grays_and_twice_is_once_undone():
    (found,) = find_degradations(["geirhos/false-colour"])
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert abs(found.condition(1).degrade(gray, "a").astype(int) - gray).max() <= 1
    dull = (110 + 30 * (photograph() / 255)).astype(np.uint8)
    turned = found.condition(1).degrade(dull, "a")
    assert abs(turned.astype(int) - dull).max() > 5
    assert abs(found.condition(1).degrade(turned, "a").astype(int) - dull).max() <= 2


def test_levels_are_written_as_published():
    written = {
        found.name.partition("/")[2]: [one.level_text for one in found.conditions()]
        for found in find_degradations(["geirhos"])
    }
    assert written["contrast"] == ["none", "c100", "c50", "c30", "c15", "c10", "c05", "c03", "c01"]
    assert written["uniform-noise"][1:] == ["0.00", "0.03", "0.05", "0.10", "0.20", "0.35", "0.60", "0.90"]
    assert written["high-pass"][1:] == ["inf", "3", "1.5", "1", "0.7", "0.55", "0.45", "0.4"]
    assert written["colour"] == ["cr", "bw"]


def test_no_two_levels_are_called_the_same():
    pairs = {"contrast": (0.1234567, 0.1234568), "uniform-noise": (0.031, 0.033), "high-pass": (0.1234567, 0.1234568)}
    for name, levels in pairs.items():
        (found,) = find_degradations([f"geirhos/{name}"])
        assert len({found.condition(level).name for level in levels}) == 2
        assert [found.condition_called(found.condition(level).level_text).level for level in levels] == [*levels]


def test_what_there_is_not_is_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"no degradation 'nois'.*noise"):
        find_degradations(["nois"])
    (found,) = find_degradations(["noise/gaussian"])
    with pytest.raises(UserError, match="numbers from 0 to 1"):
        found.condition(1.5)
    with pytest.raises(ValueError, match="after their crop"):
        found.condition(0.5).degrade(np.zeros((4, 5, 3), np.uint8), "a")
