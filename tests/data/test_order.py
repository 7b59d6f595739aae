"""Augmentations come in the order of the documents, with the pixels of torchvision's functions in that order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from accel_trainer.config import Job
from accel_trainer.core.errors import InvalidJob
from accel_trainer.data.augment.blur import ContrastiveBlur, GaussianBlur, contrastive_radius
from accel_trainer.data.augment.color import ColorJitter, Grayscale
from accel_trainer.data.augment.erase import RandomErase
from accel_trainer.data.augment.geometry import crop_box
from accel_trainer.data.augment.noise import AddNoise
from accel_trainer.data.augment.occlusion import Occlude
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.pipeline import training_views
from accel_trainer.data.rng.random_fields import normal_field
from accel_trainer.data.views import Views

UNLIKELY = 1e-4
SIZE = 32
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def occluders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("occluders")
    make_occluders(folder, ["barVert04", "natural"], [40, 60], number=6, size=40, report=lambda _: None)
    # One mask that covers all.
    (folder / "all" / "10").mkdir(parents=True)
    torch.save(torch.full((1, 40, 40), 255, dtype=torch.uint8), folder / "all" / "10" / "occluders.pt")
    return folder


@pytest.fixture(scope="module")
def all_steps(occluders: Path) -> dict[str, Any]:
    """Every step of the order that a job can have without a policy."""
    return {
        "transform_type": "contrastive",
        "Occlusion": {
            "occluder_dir": str(occluders),
            "form": ["barVert04", "natural"],
            "probability": 0.8,
            "visibility": [40, 60],
            "color": ["random", [250, 20, 0]],
        },
        "Blur": {"sigmas": [0.7, 2], "probs": [0.3, 0.4]},
        "Noise": {"ssnrs": [0.4, 0.8], "probs": 0.7},
        "randomerase": [-1.5, 0.25, 3],
    }


def job_of(**given: Any) -> Job:
    return Job(architecture="resnet18", image_size=SIZE, **{"trackers": [], **given})


class Pictures:
    """Random pixels in one class, not square."""

    classes = ("only",)

    def __init__(self, count: int) -> None:
        self.labels = np.zeros(count, np.int64)

    def read(self, index: int) -> torch.Tensor:
        pixels = np.random.default_rng(index).integers(0, 256, (3, 41, 53), dtype=np.uint8)
        return torch.from_numpy(pixels)

    def describe(self, index: int) -> str:
        return str(index)


def seen(views: Views, count: int) -> torch.Tensor:
    """The first so many pictures as a model sees them."""
    indices = np.arange(count)
    read = ImageReader(Pictures(count), views, replace_corrupt=False)
    return read(BatchPlan(1, 0, indices, indices)).inputs.on("cpu")


def parameters_of(views: Views, count: int) -> dict[type, Any]:
    """What is drawn for them, by kind of effect, and the numbers of the crop."""
    indices = np.arange(count)
    drawn = views.draw(views.draws(BatchPlan(1, 0, indices, indices), indices))
    effects = zip(
        (*views.before_policy, *views.effects, *views.last_effects),
        (*drawn.before_policy, *drawn.effects, *drawn.last_effects),
        strict=True,
    )
    return {np.ndarray: drawn.crop, **{type(effect): effect.fetch(parameters) for effect, parameters in effects}}


def blurred(image: torch.Tensor, sigma: float, radius: int | None = None) -> torch.Tensor:
    reach = int(np.ceil(3 * sigma)) if radius is None else radius
    return F.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2) if sigma else image


ADJUSTMENTS: list[Callable[..., torch.Tensor]] = [
    F.adjust_brightness,
    F.adjust_contrast,
    F.adjust_saturation,
    F.adjust_hue,
]


def plain_chain(views: Views, row: int, drawn: dict[type, Any], value: list[float]) -> torch.Tensor:
    """One picture by torchvision's functions and what was drawn, one step after the other."""
    pixels = Pictures(row + 1).read(row)
    numbers = drawn[np.ndarray][row]
    top, left, height, width = crop_box(41, 53, numbers[:-1])
    image = F.resized_crop(pixels, top, left, height, width, [SIZE, SIZE], antialias=True)
    image = F.to_dtype(image, torch.float32, scale=True)
    occlude = next(effect for effect in views.effects if isinstance(effect, Occlude))
    occluders = drawn[Occlude]
    if row in occluders.rows:
        at = occluders.rows.tolist().index(row)
        # They are read as they lie on the flipped image.
        before_flip = F.hflip if numbers[-1] < 0.5 else lambda pixels: pixels
        cover = before_flip(occluders.cover[at]) / 255
        if at in occluders.textured:
            front = before_flip(occluders.textures[occluders.textured.tolist().index(at)]) / 255
        else:
            front = cover * before_flip(occlude._fill(occluders.drawn, torch.device("cpu"))[at])
        image = image * (1 - cover) + front
    if numbers[-1] < 0.5:
        image = F.hflip(image)
    for which in drawn[ColorJitter].order[row]:
        if which >= 0:
            image = ADJUSTMENTS[which](image, float(drawn[ColorJitter].factors[row, which]))
    if drawn[Grayscale].is_gray[row]:
        image = F.rgb_to_grayscale(image, 3)
    image = blurred(image, float(drawn[ContrastiveBlur].sigma[row]), contrastive_radius(SIZE))
    image = blurred(image, float(drawn[GaussianBlur].sigma[row]))
    noise = drawn[AddNoise]
    if noise.kind[row] >= 0:
        ssnr = float(noise.ssnr[row])
        field = normal_field(noise.key[row : row + 1], (3, SIZE, SIZE))[0]
        image = ((image - 0.5) * ssnr + 0.5 + field * (1 - ssnr) / 6).clamp(0, 1)
    image = F.normalize(image, MEAN, STD)
    top, bottom, left, right = drawn[RandomErase].box[row].tolist()
    return F.erase(image, top, left, bottom - top, right - left, torch.tensor(value).view(3, 1, 1))


@pytest.mark.parametrize("on_device", [False, True])
def test_images_equal_those_of_a_plain_chain_of_torchvision(all_steps: dict[str, Any], on_device: bool) -> None:
    views = training_views(job_of(**all_steps), None, on_device=on_device)
    drawn = parameters_of(views, 40)
    ours = seen(views, 40)
    for row in range(40):
        theirs = plain_chain(views, row, drawn, all_steps["randomerase"])
        torch.testing.assert_close(ours[row], theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("on_device", [False, True])
def test_frames_of_a_clip_have_the_steps_in_the_same_order(occluders: Path, on_device: bool) -> None:
    """Red occluders that are behind gray and blur, and an erased box that is behind nothing."""
    section = {"occluder_dir": str(occluders), "form": "barVert04", "visibility": 40, "color": [255, 0, 0]}
    given = {"video": True, "Blur": {"sigmas": [2, 0]}, "transform_type": "contrastive-no-blur", "randomerase": 2.5}
    job = job_of(**given, batch_size=64, Occlusion=section)
    views = training_views(job, None, on_device=on_device)
    drawn, clips = parameters_of(views, 30), seen(views, 30)
    boxes = drawn[RandomErase].box.reshape(30, 2, 4)
    assert (boxes[:, 0] == boxes[:, 1]).all()
    is_gray = drawn[Grayscale].is_gray.reshape(30, 2)[:, 0]
    for clip, (box, _), gray in zip(clips, boxes.tolist(), is_gray, strict=True):
        top, bottom, left, right = box
        assert (clip[:, :, top:bottom, left:right] == 2.5).all()
        outside = torch.ones(SIZE, SIZE, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        pixels = (clip * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None])[..., outside]
        is_equal = (pixels[:, 0] - pixels[:, 1]).abs().max() < 1e-5
        assert bool(is_equal) == gray


# -- how often a color survives ---------------------------------------------------------------------------------------


def red_survivors(views: Views, count: int, tolerance: float) -> torch.Tensor:
    """Of images that red covers all over, which are red still; bool (count,)."""
    images = seen(views, count) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return ((images - red).abs() <= tolerance).all(dim=(1, 2, 3))


def test_a_red_occluder_survives_where_neither_jitter_nor_gray_comes(occluders: Path) -> None:
    """In 0.2 * 0.8 of the images; by the first rules in all of them."""
    section = {"occluder_dir": str(occluders), "form": "all", "visibility": 10, "color": [255, 0, 0]}
    given = {"transform_type": "contrastive", "Occlusion": section}
    count = 3000
    survived = int(red_survivors(training_views(job_of(**given), None, on_device=True), count, 1e-5).sum())
    expected = [0.16 * count, 0.84 * count]
    assert stats.chisquare([survived, count - survived], expected).pvalue > UNLIKELY
    assert red_survivors(training_views(job_of(**given, rules=1), None), 200, 1e-5).all()


@pytest.mark.parametrize("tolerance", [0.1, 0.25])
def test_red_occluders_stay_nearly_red_as_often_as_with_torchvision(occluders: Path, tolerance: float) -> None:
    section = {"occluder_dir": str(occluders), "form": "all", "visibility": 10, "color": [255, 0, 0]}
    ours = red_survivors(
        training_views(job_of(transform_type="contrastive", Occlusion=section), None, on_device=True), 2500, tolerance
    )
    chain = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.GaussianBlur(3, (0.1, 2)),
        ]
    )
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 4, 4).contiguous()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = [bool(((chain(red) - red).abs() <= tolerance).all()) for _ in range(2500)]
    counts = [[int(ours.sum()), 2500 - int(ours.sum())], [sum(theirs), 2500 - sum(theirs)]]
    assert stats.chi2_contingency(counts).pvalue > UNLIKELY


# -- which steps there are --------------------------------------------------------------------------------------------


def kinds(effects: Any) -> list[type]:
    return [type(effect) for effect in effects]


def test_steps_come_in_the_order_of_the_rules(all_steps: dict[str, Any]) -> None:
    views = training_views(job_of(**all_steps), None)
    colors = [ColorJitter, Grayscale, ContrastiveBlur]
    assert kinds(views.effects) == [Occlude, *colors, GaussianBlur, AddNoise]
    assert kinds(views.last_effects) == [RandomErase]
    old = training_views(job_of(**{**all_steps, "randomerase": 0.5}, rules=1), None)
    assert kinds(old.effects) == [*colors, Occlude, GaussianBlur, AddNoise, RandomErase]
    assert kinds(old.last_effects) == []


def test_pink_occluders_are_gray_by_the_newest_rules_only(occluders: Path) -> None:
    section = {"occluder_dir": str(occluders), "form": "all", "visibility": 10, "color": "pink_noise"}
    for rules, is_gray in ((1, False), (2, True)):
        views = training_views(job_of(Occlusion=section, mean=0, std=1, rules=rules), None)
        images = seen(views, 4)
        assert torch.equal(images, images[:, :1].expand_as(images)) == is_gray


def test_a_policy_changes_images_that_are_occluded_already(all_steps: dict[str, Any]) -> None:
    given = {**all_steps, "transform_type": "default-randaugment"}
    views = training_views(job_of(**given), None)
    assert kinds(views.before_policy) == [Occlude]
    assert kinds(views.effects) == [GaussianBlur, AddNoise]
    old = training_views(job_of(**{**given, "randomerase": 0.5}, rules=1), None)
    assert kinds(old.before_policy) == []
    assert kinds(old.effects) == [Occlude, GaussianBlur, AddNoise, RandomErase]


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment", "augmix"])
def test_occluded_images_reach_a_policy_with_the_same_bits_everywhere(all_steps: dict[str, Any], policy: str) -> None:
    job = job_of(Occlusion=all_steps["Occlusion"], transform_type=f"default-{policy}")
    loader, device = (training_views(job, None, on_device=on_device) for on_device in (False, True))
    assert torch.equal(seen(loader, 24), seen(device, 24))
    drawn = parameters_of(loader, 24)
    assert len(drawn[Occlude].rows) > 12


def test_before_a_policy_images_without_an_occluder_keep_their_bytes_also_beside_others(
    all_steps: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none of those that are rendered together has one, none becomes floats."""
    views = training_views(job_of(Occlusion=all_steps["Occlusion"], transform_type="default-randaugment"), None)
    plain = seen(training_views(job_of(transform_type="default-randaugment"), None), 24)
    by_kernel = seen(views, 24)
    occluded: list[int] = []
    apply = Occlude.apply

    def noted(self: Occlude, images: torch.Tensor, fetched: Any) -> torch.Tensor:
        occluded.append(len(fetched.rows))
        return apply(self, images, fetched)

    monkeypatch.setattr(Occlude, "apply", noted)
    monkeypatch.setattr(Occlude, "prepare", lambda self, parameters: parameters)  # the kernel is not told
    images = seen(views, 24)
    assert torch.equal(images, by_kernel)
    rows = parameters_of(views, 24)[Occlude].rows
    assert 0 < len(rows) == sum(occluded) < 24
    assert all(occluded)
    others = np.setdiff1d(np.arange(24), rows)
    assert torch.equal(images[others], plain[others])


def test_without_occlusion_all_is_as_by_the_first_rules() -> None:
    by_newest, by_first = (training_views(job_of(transform_type="contrastive", rules=rules), None) for rules in (2, 1))
    assert torch.equal(seen(by_newest, 20), seen(by_first, 20))


def test_an_occluder_is_flipped_with_its_image(occluders: Path) -> None:
    section = {"occluder_dir": str(occluders), "form": "barVert04", "visibility": 40, "color": [255, 0, 0]}
    views = training_views(job_of(Occlusion=section), None)
    drawn = parameters_of(views, 12)
    drawn_without_flip = parameters_of(training_views(job_of(Occlusion=section, rules=1), None), 12)[Occlude]
    images = seen(views, 12)
    for row in range(12):
        cover = drawn[Occlude].cover[row]
        unflipped = drawn_without_flip.cover[row]
        is_flipped = drawn[np.ndarray][row, -1] < 0.5
        assert torch.equal(cover, unflipped.flip(-1) if is_flipped else unflipped)
        red = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        pixels = images[row] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
        assert ((pixels - red).abs().amax(0) < 1e-5)[cover[0] == 255].all()


# -- erasing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -2.0, 1.5, [0.5, -1, 2], "random"])
def test_an_erased_box_holds_its_value_in_normalized_units(value: Any) -> None:
    views = training_views(job_of(randomerase=value), None)
    plain = seen(training_views(job_of(), None), 40)
    boxes, images = parameters_of(views, 40)[RandomErase].box, seen(views, 40)
    inside = []
    for image, original, (top, bottom, left, right) in zip(images, plain, boxes.tolist(), strict=True):
        box = (slice(None), slice(top, bottom), slice(left, right))
        inside.append(image[box].flatten(1))
        expected = original.clone()
        expected[box] = image[box]
        assert torch.equal(image, expected)
    filled = torch.cat(inside, 1)
    if value == "random":
        # torchvision fills with numbers of a standard normal distribution.
        theirs = v2.RandomErasing(p=1, value="random").make_params([torch.empty(3, 200, 200)])["v"]
        assert stats.ks_2samp(filled.flatten().numpy(), theirs.flatten().numpy()).pvalue > UNLIKELY
    else:
        color = torch.tensor(value if isinstance(value, list) else [float(value)] * 3)
        assert torch.equal(filled, color[:, None].expand_as(filled))


def test_by_the_first_rules_an_erased_box_has_a_brightness() -> None:
    views = training_views(job_of(randomerase=0.25, rules=1), None)
    gray = F.normalize(torch.full((3, 1, 1), 0.25), MEAN, STD)
    for image, (top, bottom, left, right) in zip(
        seen(views, 30), parameters_of(views, 30)[RandomErase].box.tolist(), strict=True
    ):
        box = image[:, top:bottom, left:right]
        torch.testing.assert_close(box, gray.expand_as(box), rtol=0, atol=1e-6)
    with pytest.raises(InvalidJob, match="no brightness from 0 to 1"):
        job_of(randomerase=-1, rules=1)
