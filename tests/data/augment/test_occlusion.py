"""Occluders come as often, cover as much and look as a job says."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from accel_trainer.config import Job
from accel_trainer.config.augmentations import Occlusion
from accel_trainer.core.errors import InvalidJob, UserError
from accel_trainer.data.augment import geometry
from accel_trainer.data.augment.occlusion import Occlude, OcclusionParameters
from accel_trainer.data.native.images import Images
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.pipeline import check_augmentations
from accel_trainer.data.rng.draws import Draws
from accel_trainer.data.views import Augmentations, Views

UNLIKELY = 1e-4
FORMS, LEVELS = ["mudSplash", "barHorz04", "polkadot", "natural"], [10, 30, 50, 70, 90]
WHITE = [255, 255, 255]


def save(folder: Path, form: str, level: int, masks: torch.Tensor) -> None:
    (folder / form / str(level)).mkdir(parents=True)
    torch.save(masks, folder / form / str(level) / "occluders.pt")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made occluders of all levels, and some of one level: `half` covers with any opacity, `painted` too and has a
    texture, `full` covers all, and rulers say by their red and green which column and row a pixel is of.
    """
    folder = tmp_path_factory.mktemp("occluders")
    make_occluders(folder, FORMS, LEVELS, number=24, size=64, report=lambda line: None)
    any_of_256 = partial(torch.randint, 256, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    save(folder, "half", 50, any_of_256(size=(3, 1, 256, 256)))
    save(folder, "painted", 50, any_of_256(size=(3, 4, 256, 256)))
    save(folder, "full", 10, torch.full((2, 1, 64, 64), 255, dtype=torch.uint8))
    for form, size in (("ruler", 256), ("small ruler", 64)):
        line = torch.arange(size).expand(size, size)
        ruler = torch.stack([line, line.T, torch.zeros_like(line), torch.full_like(line, 255)])
        save(folder, form, 10, ruler[None].to(torch.uint8))
    return folder


MakeOcclude = Callable[..., Occlude]


@pytest.fixture
def occlude(bank: Path) -> MakeOcclude:
    def make(form: str | list[str] = "mudSplash", image_size: int = 32, **given: Any) -> Occlude:
        return Occlude(Occlusion.model_validate({"occluder_dir": str(bank), "form": form, **given}), image_size)

    return make


def draws(count: int, **others: Any) -> Draws:
    return Draws(**{"seed": 3, "epoch": 1, "step": 5, "indices": np.arange(count), **others})


def black(count: int, size: int) -> torch.Tensor:
    return torch.zeros(count, 3, size, size)


def pictures(count: int, size: int) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def occluded(effect: Occlude, images: torch.Tensor, drawn: OcclusionParameters) -> torch.Tensor:
    return effect.apply(images.clone(), effect.fetch(drawn))


def as_often(found: np.ndarray, shares: dict[int, float]) -> bool:
    """Whether values come as often as these shares say, by a chi-squared test; those of share 0 never."""
    counts = {value: int((found == value).sum()) for value in shares}
    assert sum(counts.values()) == len(found)
    assert all(counts[value] == 0 for value, share in shares.items() if share == 0)
    there = [value for value, share in shares.items() if share]
    if len(there) == 1:
        return counts[there[0]] == len(found)
    expected = [len(found) * shares[value] for value in there]
    return bool(stats.chisquare([counts[value] for value in there], expected).pvalue > UNLIKELY)


def independent(first: np.ndarray, second: np.ndarray) -> bool:
    _, first = np.unique(first, return_inverse=True)
    _, second = np.unique(second, return_inverse=True)
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    return bool(stats.chi2_contingency(table).pvalue > UNLIKELY)


# -- how often ----------------------------------------------------------------------------------------------------


def test_probability_is_shared_out_among_the_levels_and_leaves_the_rest_unoccluded(occlude: MakeOcclude) -> None:
    drawn = occlude(probability=0.8).draw(draws(20_000))
    assert as_often(drawn.visibility, {100: 0.2, **dict.fromkeys(LEVELS, 0.16)})
    np.testing.assert_array_equal(drawn.masks < 0, drawn.visibility == 100)


@pytest.mark.parametrize(
    ("visibility", "vis_probs", "shares"),
    [
        ("all", [1, 0, 3, 2, 4], {10: 0.1, 30: 0, 50: 0.3, 70: 0.2, 90: 0.4}),
        ([90, 30], [0.25, 0.75], {90: 0.25, 30: 0.75}),
        ([90, 30, 10], [0, 5, 0], {90: 0, 30: 1, 10: 0}),
        ([30, 1.0, 0.5], [1, 2, 1], {30: 0.25, 100: 0.5, 50: 0.25}),
        ([30, 100], None, {30: 0.5, 100: 0.5}),
        (0.7, None, {70: 1}),
    ],
)
@pytest.mark.parametrize("probability", [1.0, 0.6])
def test_each_visibility_comes_by_its_weight(
    occlude: MakeOcclude, visibility: Any, vis_probs: list[float] | None, shares: dict[int, float], probability: float
) -> None:
    effect = occlude(FORMS, visibility=visibility, vis_probs=vis_probs, probability=probability)
    expected = {level: probability * share for level, share in shares.items()}
    expected[100] = expected.get(100, 0) + 1 - probability
    drawn = effect.draw(draws(20_000))
    assert as_often(drawn.visibility, expected)
    np.testing.assert_array_equal(drawn.masks < 0, drawn.visibility == 100)


@pytest.mark.parametrize("visibility", [1.0, 100, [100]])
def test_visibility_1_alone_is_no_occluder(occlude: MakeOcclude, visibility: Any) -> None:
    effect, images = occlude(visibility=visibility), pictures(5, 32)
    assert torch.equal(occluded(effect, images, effect.draw(draws(5))), images)


def test_a_visibility_of_1_among_others_leaves_its_images_as_they_are(occlude: MakeOcclude) -> None:
    effect, images = occlude(visibility=[30, 1.0]), pictures(60, 32)
    drawn = effect.draw(draws(60))
    changed = (occluded(effect, images, drawn) != images).flatten(1).any(1)
    assert changed.tolist() == (drawn.visibility == 30).tolist()
    assert set(changed.tolist()) == {True, False}


def forms_of(effect: Occlude, drawn: OcclusionParameters) -> np.ndarray:
    """Which form each row is of, -1 for none."""
    of_mask = [which for which, form in enumerate(effect.forms) for _ in form.levels]
    return np.array([*of_mask, -1])[drawn.masks]


@pytest.mark.parametrize("visibility", ["all", [10, 70], 0.5])
def test_forms_come_equally_often_whatever_the_level(occlude: MakeOcclude, visibility: Any) -> None:
    effect = occlude(FORMS, visibility=visibility)
    drawn = effect.draw(draws(20_000))
    forms = forms_of(effect, drawn)
    assert as_often(forms, dict.fromkeys(range(4), 0.25))
    if visibility != 0.5:
        assert independent(forms, drawn.visibility)


def test_forms_of_different_levels_come_equally_often_with_all_of_theirs(occlude: MakeOcclude) -> None:
    effect = occlude(["mudSplash", "half"], probability=0.5)
    drawn = effect.draw(draws(20_000))
    forms = forms_of(effect, drawn)
    assert as_often(forms, {0: 0.25, 1: 0.25, -1: 0.5})
    assert as_often(drawn.visibility[forms == 0], dict.fromkeys(LEVELS, 0.2))
    assert as_often(drawn.visibility[forms == 1], {50: 1})


def test_the_mask_has_the_requested_form_and_visibility(occlude: MakeOcclude) -> None:
    effect = occlude(FORMS)
    drawn = effect.draw(draws(400))
    forms = forms_of(effect, drawn)
    for which, level, mask, item in zip(forms, drawn.visibility, drawn.masks, drawn.item, strict=True):
        read = effect.all_masks[mask].read(int(item))
        assert effect.all_masks[mask] is effect.forms[which].levels[level]
        assert float(read[-1].float().mean() / 255) == pytest.approx(1 - level / 100, abs=1e-3)
        assert len(read) == (4 if FORMS[which] == "natural" else 1)


def test_masks_of_a_level_are_equally_frequent_and_half_are_flipped(occlude: MakeOcclude) -> None:
    drawn = occlude(FORMS).draw(draws(20_000))
    assert as_often(drawn.item, dict.fromkeys(range(24), 1 / 24))
    assert independent(drawn.item, drawn.masks)
    assert independent((4 * drawn.place[:, 2]).astype(int), drawn.masks)
    for number in drawn.place.T:
        assert stats.kstest(number, "uniform").pvalue > UNLIKELY
    assert independent(drawn.place[:, 0] < 0.5, drawn.place[:, 1] < 0.5)


def test_colours_of_a_list_come_equally_often_and_random_ones_are_uniform(occlude: MakeOcclude) -> None:
    drawn = occlude(color=["random", [255, 0, 0], "pink_noise", [0, 0, 9]]).draw(draws(20_000))
    assert as_often(drawn.color, dict.fromkeys(range(4), 0.25))
    assert independent(drawn.color, drawn.visibility)
    for channel in drawn.rgb.T:
        assert stats.kstest(channel, "uniform").pvalue > UNLIKELY
    assert stats.pearsonr(drawn.rgb[:, 0], drawn.rgb[:, 1]).pvalue > UNLIKELY
    assert len(np.unique(drawn.key)) == 20_000


# -- sharing ------------------------------------------------------------------------------------------------------


def test_the_occluder_of_an_image_is_independent_of_its_batch(occlude: MakeOcclude) -> None:
    effect = occlude(FORMS, color=["random", "pink_noise"], random_resize=True, probability=0.7)
    together = effect.draw(draws(0, indices=np.array([8, 4, 0, 9])))
    alone = effect.draw(draws(0, indices=np.array([0])))
    for name in OcclusionParameters.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(together[2:3], name), getattr(alone, name))


def test_with_batch_dependence_all_images_of_a_batch_share_one_occluder(
    occlude: MakeOcclude,
) -> None:
    effect, images = occlude(FORMS, color="pink_noise", random_resize=True), black(1, 32).expand(6, -1, -1, -1)
    of_steps = [occluded(effect, images, effect.draw(draws(6, step=step, batch_dependence=True))) for step in range(8)]
    for of_step in of_steps:
        assert torch.equal(of_step, of_step[:1].expand_as(of_step))
    assert len({of_step[0].numpy().tobytes() for of_step in of_steps}) == 8


@pytest.mark.parametrize("view_dependence", [True, False])
@pytest.mark.parametrize("views", [[0], [1], [2, 0]])
def test_only_the_named_views_are_occluded(occlude: MakeOcclude, views: list[int], view_dependence: bool) -> None:
    effect, images = occlude(views=views), pictures(30, 32)
    drawn = effect.draw(draws(10, num_views=3, view_dependence=view_dependence))
    changed = (occluded(effect, images, drawn) != images).flatten(1).any(1).unflatten(0, (10, 3))
    assert changed.tolist() == [[view in views for view in range(3)]] * 10
    assert (drawn.visibility.reshape(10, 3) != 100).tolist() == changed.tolist()


def test_named_views_have_the_occluders_that_they_have_without_the_others(occlude: MakeOcclude) -> None:
    every, one = (occlude(views=views).draw(draws(10, num_views=3)) for views in (None, [1]))
    for name in OcclusionParameters.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one[1::3], name), getattr(every[1::3], name))


# -- where --------------------------------------------------------------------------------------------------------


def measured(effect: Occlude, count: int, **others: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which columns and rows of a ruler are seen, in its pixels, each int64 (count, image_size)."""
    size = effect.image_size
    seen = occluded(effect, black(count, size), effect.draw(draws(count, **others))).mul(255).round().long()
    assert (seen[:, 2] == 0).all()
    columns, rows = seen[:, 0, size // 2], seen[:, 1, :, size // 2]
    assert (seen[:, 0] - columns[:, None]).abs().max() <= 1
    assert (seen[:, 1] - rows[:, :, None]).abs().max() <= 1
    return columns.numpy(), rows.numpy()


def test_a_window_of_seven_eighths_is_taken_anywhere_and_flipped_by_halves(occlude: MakeOcclude) -> None:
    """As the authors of the dataset do with 224 of 256 pixels; here it is 56 of 64, none of them resized."""
    corners, flips = [], []
    for lines in measured(occlude("small ruler", image_size=56), 400):
        steps = np.diff(lines, axis=1)
        is_flipped = steps[:, 0] < 0
        np.testing.assert_array_equal(steps, np.where(is_flipped, -1, 1)[:, None].repeat(55, 1))
        assert as_often(lines.min(1), dict.fromkeys(range(9), 1 / 9))
        assert as_often(is_flipped, {0: 0.5, 1: 0.5})
        corners.append(lines.min(1))
        flips.append(is_flipped)
    assert stats.spearmanr(*corners).pvalue > UNLIKELY
    assert independent(*flips)
    assert stats.spearmanr(corners[0], flips[0]).pvalue > UNLIKELY


def test_random_resize_takes_the_window_of_a_crop_of_80_to_100_percent(occlude: MakeOcclude) -> None:
    columns, rows = measured(occlude("ruler", image_size=32, random_resize=True), 150)
    # From the centre of the first of 32 pixels to that of the last.
    width, height = (np.abs(lines[:, -1] - lines[:, 0]) * 32 / 31 * 8 / 7 for lines in (columns, rows))
    whole = torch.empty(3, 256, 256)
    theirs = [RandomResizedCrop.get_params(whole, [0.8, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)]
    for ours, expected in (
        (width * height, [w * h for _, _, h, w in theirs]),
        (width / height, [w / h for _, _, h, w in theirs]),
    ):
        assert stats.ks_2samp(ours, expected).pvalue > UNLIKELY
    assert (width * height).min() > 0.78 * 256**2
    plain = measured(occlude("ruler", image_size=32), 20)
    for lines in plain:
        np.testing.assert_allclose(np.abs(lines[:, -1] - lines[:, 0]) * 32 / 31 * 8 / 7, 256, atol=4)


# -- pixels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("random_resize", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_occluders_cover_what_their_visibility_leaves(occlude: MakeOcclude, form: str, random_resize: bool) -> None:
    effect = occlude(form, color=WHITE, random_resize=random_resize)
    drawn = effect.draw(draws(500))
    if form == "natural":  # which is not white
        covered = effect.fetch(drawn).cover.float().div(255).mean((1, 2, 3)).numpy()
    else:
        covered = occluded(effect, black(500, 32), drawn).mean((1, 2, 3)).numpy()
    for level in LEVELS:
        assert covered[drawn.visibility == level].mean() == pytest.approx(1 - level / 100, abs=0.02)


def windows(effect: Occlude, drawn: OcclusionParameters) -> list[np.ndarray]:
    """The masks as they are, cut and flipped, where nothing is resized: uint8 (channels, 224, 224) each."""
    found = []
    for mask, item, place in zip(drawn.masks, drawn.item, drawn.place, strict=True):
        top, left = (int(number * 33) for number in place[2:])
        window = effect.all_masks[mask].read(int(item)).numpy()[:, top : top + 224, left : left + 224]
        window = window[:, ::-1] if place[0] < 0.5 else window
        found.append(window[:, :, ::-1] if place[1] < 0.5 else window)
    return found


@pytest.mark.parametrize("color", [[200, 100, 0], WHITE, [0, 0, 0]])
def test_a_mask_of_one_channel_is_filled_by_its_opacity(occlude: MakeOcclude, color: list[int]) -> None:
    effect, images = occlude("half", image_size=224, color=color), pictures(4, 224)
    drawn = effect.draw(draws(4))
    fill = np.array(color)[:, None, None] / 255
    for shown, image, mask in zip(occluded(effect, images, drawn), images, windows(effect, drawn), strict=True):
        opacity = mask / 255
        np.testing.assert_allclose(shown.numpy(), image.numpy() * (1 - opacity) + fill * opacity, atol=1e-6)


def test_a_mask_of_four_channels_keeps_its_texture_as_pillow_composites_it(occlude: MakeOcclude) -> None:
    effect, images = occlude("painted", image_size=224, color=WHITE), pictures(4, 224).mul(255).round().div(255)
    drawn = effect.draw(draws(4))
    for shown, image, mask in zip(occluded(effect, images, drawn), images, windows(effect, drawn), strict=True):
        pixels = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        behind = Image.fromarray(pixels).convert("RGBA")
        front = Image.fromarray(np.ascontiguousarray(np.moveaxis(mask, 0, -1)))
        theirs = np.asarray(Image.alpha_composite(behind, front).convert("RGB")).astype(int)
        assert np.abs(shown.mul(255).permute(1, 2, 0).numpy() - theirs).max() <= 2


def test_resizing_mixes_in_no_colour_of_what_cannot_be_seen(bank: Path, occlude: MakeOcclude, tmp_path: Path) -> None:
    """A white sheet with a black rim behind its transparent half: nothing gets darker than the white image."""
    sheet = torch.zeros(1, 4, 64, 64, dtype=torch.uint8)
    sheet[:, :, :, ::2] = 255
    save(tmp_path, "sheet", 50, sheet)
    effect = occlude("sheet", image_size=23, occluder_dir=str(tmp_path))
    shown = occluded(effect, torch.ones(20, 3, 23, 23), effect.draw(draws(20)))
    assert shown.min() > 1 - 2 / 255


@pytest.mark.parametrize(("color", "rgb"), [([255, 128, 0], (1.0, 128 / 255, 0.0)), (WHITE, (1.0, 1.0, 1.0))])
def test_a_full_occluder_shows_its_colour(occlude: MakeOcclude, color: list[int], rgb: tuple[float, ...]) -> None:
    effect = occlude("full", color=color)
    shown = occluded(effect, pictures(5, 32), effect.draw(draws(5)))
    torch.testing.assert_close(shown, torch.tensor(rgb).view(1, 3, 1, 1).expand_as(shown), rtol=0, atol=1e-7)


def test_a_random_colour_is_one_for_each_image(occlude: MakeOcclude) -> None:
    effect = occlude("full", color="random")
    drawn = effect.draw(draws(50))
    shown = occluded(effect, black(50, 32), drawn)
    assert torch.equal(shown, shown[:, :, :1, :1].expand_as(shown))
    np.testing.assert_allclose(shown[:, :, 0, 0].numpy(), drawn.rgb, atol=1e-6)


@pytest.mark.parametrize("image_size", [32, 33])
def test_pink_noise_has_amplitudes_of_one_over_frequency_from_black_to_white(
    occlude: MakeOcclude, image_size: int
) -> None:
    effect = occlude("full", image_size, color="pink_noise")
    shown = occluded(effect, pictures(20, image_size), effect.draw(draws(20)))
    torch.testing.assert_close(shown.amin((2, 3)), torch.zeros(20, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(shown.amax((2, 3)), torch.ones(20, 3), rtol=0, atol=1e-6)
    assert len({field.numpy().tobytes() for field in shown.flatten(0, 1)}) == 60
    amplitude = np.abs(np.fft.fft2(shown.double().numpy()))
    frequency = np.hypot(np.fft.fftfreq(image_size)[:, None], np.fft.fftfreq(image_size))
    level = (amplitude * frequency).reshape(20, 3, -1)[..., 1:]
    np.testing.assert_allclose(level / level.mean(-1, keepdims=True), 1, atol=1e-3)


def test_the_amplitudes_of_pink_noise_are_copied_to_a_device_once(occlude: MakeOcclude) -> None:
    effect = occlude("full", color="pink_noise")
    seen = []
    for _ in range(2):
        drawn = effect.draw(draws(2))
        effect.apply(pictures(2, 32).to("meta"), effect.fetch(drawn))
        seen.append(effect.pink)
    assert seen[0].is_meta
    assert seen[1] is seen[0]


def test_among_colours_each_image_has_the_one_that_was_drawn(occlude: MakeOcclude) -> None:
    effect = occlude("full", color=["random", "pink_noise", [255, 0, 0]])
    drawn = effect.draw(draws(40))
    for shown, which, rgb in zip(occluded(effect, black(40, 32), drawn), drawn.color, drawn.rgb, strict=True):
        is_flat = torch.equal(shown, shown[:, :1, :1].expand_as(shown))
        assert is_flat == (which != 1)
        if is_flat:
            expected = torch.from_numpy(rgb).float() if which == 0 else torch.tensor([1.0, 0, 0])
            torch.testing.assert_close(shown[:, 0, 0], expected, rtol=0, atol=1e-6)
    assert set(drawn.color.tolist()) == {0, 1, 2}


def test_pink_noise_is_gray_and_by_the_first_rules_of_three_colors(bank: Path) -> None:
    section = Occlusion(occluder_dir=str(bank), form=["full"], color=["pink_noise"])
    gray, colored = (Occlude(section, 32, gray_noise=gray) for gray in (True, False))
    drawn = gray.draw(draws(30))
    ours, before = (occluded(effect, black(30, 32), drawn) for effect in (gray, colored))
    assert torch.equal(ours, ours[:, :1].expand_as(ours))
    assert torch.equal(ours[:, 0], before[:, 0])
    assert (before[:, 0] != before[:, 1]).any()
    assert ours.amin((1, 2, 3)).max() < 1e-6
    assert (ours.amax((1, 2, 3)) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("image_size", [31, 32])
@pytest.mark.parametrize("given", [{}, {"color": "pink_noise"}, {"form": ["painted", "half"], "color": ["random"]}])
def test_an_occluder_of_a_flipped_crop_is_as_one_that_is_flipped_later(
    bank: Path, given: dict[str, Any], image_size: int
) -> None:
    """To the bit, whatever the size."""
    section = Occlusion.model_validate({"occluder_dir": str(bank), "form": "half", **given})
    before, along = (Occlude(section, image_size, flips_with_crop=flips) for flips in (False, True))
    these, images = draws(40), pictures(40, image_size)
    is_flipped = torch.from_numpy(geometry.RandomResizedCrop(image_size).draw(these)[:, -1] < 0.5)

    def flipped(images: torch.Tensor) -> torch.Tensor:
        return torch.where(is_flipped[:, None, None, None], images.flip(-1), images)

    assert 5 < is_flipped.sum() < 35
    expected = flipped(occluded(before, images, before.draw(these)))
    assert torch.equal(occluded(along, flipped(images), along.draw(these)), expected)


@pytest.mark.parametrize("uses_cuda", [True, False])
def test_masks_for_a_gpu_are_pinned(occlude: MakeOcclude, monkeypatch: pytest.MonkeyPatch, uses_cuda: bool) -> None:
    """Those of batches that are finished on the device; each image's own are not."""
    pinned: list[torch.Size] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.shape)
        return tensor.clone()

    how = Augmentations(geometry.CenterCrop(32), effects=[occlude(["half", "painted"], visibility=0.5)])
    there, here = (Views(how, on_device=on_device) for on_device in (True, False))
    drawn = there.draw(draws(20))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: uses_cuda)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    pixels = torch.full((20, 3, 32, 32), 100, dtype=torch.uint8)
    inputs = there.collate(pixels, drawn, None)
    assert bool(pinned) == uses_cuda
    if uses_cuda:
        cover, textures = pinned
        assert 0 < textures[0] < cover[0] == 20
    before = len(pinned)
    here.render(Images.of(pixels[:1]), drawn[slice(0, 1)], here.empty(1))
    assert len(pinned) == before
    assert inputs.on("cpu").shape == (20, 3, 32, 32)


def test_probability_0_leaves_images_as_they_are_to_the_bit(occlude: MakeOcclude) -> None:
    effect, images = occlude([*FORMS, "painted"], probability=0.0), pictures(50, 32)
    drawn = effect.draw(draws(50))
    assert torch.equal(occluded(effect, images, drawn), images)


@pytest.mark.parametrize("image_size", [1, 7, 32, 224])
def test_images_of_any_size_are_occluded_the_same_alone_and_in_a_batch(occlude: MakeOcclude, image_size: int) -> None:
    """Occluders with and without textures, images without any, and all of it for each image alone: bit for bit."""
    effect = occlude(
        [*FORMS, "half", "painted"],
        image_size,
        probability=0.8,
        color=["random", "pink_noise", WHITE],
        random_resize=True,
    )
    count = 10 if image_size == 224 else 30
    drawn, images = effect.draw(draws(count)), pictures(count, image_size)
    fetched = effect.fetch(drawn)
    assert fetched.cover.shape == (len(fetched.rows), 1, image_size, image_size)
    assert fetched.textures.shape == (len(fetched.textured), 3, image_size, image_size)
    assert 0 < len(fetched.textured) < len(fetched.rows) < count
    together = effect.apply(images.clone(), fetched)
    assert together.min() >= 0
    assert together.max() <= 1 + 2 / 255  # colours times opacity are rounded
    for row in range(count):
        one = slice(row, row + 1)
        torch.testing.assert_close(occluded(effect, images[one], drawn[one]), together[one], rtol=0, atol=1e-6)
    bare = np.setdiff1d(np.arange(count), fetched.rows)
    assert torch.equal(together[bare], images[bare])


# -- what cannot work ---------------------------------------------------------------------------------------------


def check(bank: Path, **given: Any) -> None:
    few = {"architecture": "squeezenet1_1", "dataset": "digits", "image_size": 32, "trackers": []}
    section = {"occluder_dir": str(bank), "form": "mudSplash", **given}
    check_augmentations(Job.model_validate({**few, "Occlusion": section}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"vis_probs": [1, 2]}, "Occlusion.vis_probs: there are 2 for 5 visibilities in {bank}: 10, 30, 50, 70, 90"),
        ({"vis_probs": [0, 0, 0, 0, 0]}, "Occlusion.vis_probs: all are 0"),
        ({"form": ["mudSplash", "half"], "vis_probs": [1] * 5}, "Occlusion.vis_probs: there are 5 for 1 visibilities"),
        ({"form": "mudSplosh"}, "Occlusion.form: no form 'mudSplosh'; {bank} has "),
        ({"form": "mudSplosh"}, "did you mean 'mudSplash'"),
        ({"visibility": [10, 55, 0.56]}, "Occlusion.visibility: mudSplash has no 55, 56; {bank}/mudSplash has 10, 30"),
        ({"form": ["half", "mudSplash"], "visibility": 10}, "Occlusion.visibility: half has no 10; {bank}/half has 50"),
        ({"occluder_dir": "/nowhere"}, "Occlusion.occluder_dir: no folder /nowhere"),
    ],
)
def test_forms_and_levels_missing_from_the_folder_are_reported(bank: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check(bank, **given)
    assert said.format(bank=bank) in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"visibility": [10, 30], "vis_probs": [1]}, "has 1 vis_probs for 2 visibilities"),
        ({"visibility": [10, 30], "vis_probs": [0, 0]}, "has vis_probs that are all 0"),
        ({"views": [1]}, "Occlusion.views: no view 1; there are 1, from 0"),
        ({"visibility": 0}, "Occlusion.visibility"),
        ({"color": [1, 2]}, "Occlusion.color"),
    ],
)
def test_contradictory_settings_are_reported_before_any_folder_is_read(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        check(Path("/nowhere"), **given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [{"probability": 0}, {"visibility": 1}, {"visibility": [1.0, 100]}, {"visibility": [50, 1], "vis_probs": [0, 2]}],
)
def test_where_nothing_is_ever_occluded_no_masks_are_needed(given: dict[str, Any]) -> None:
    check(Path("/nowhere"), **given)


def test_a_visibility_of_weight_0_needs_no_masks_and_is_never_drawn(occlude: MakeOcclude) -> None:
    effect = occlude("mudSplash", visibility=[33, 50, 1.0], vis_probs=[0, 1, 3], probability=0.8)
    visibility = effect.draw(draws(20_000)).visibility
    assert as_often(visibility, {50: 0.2, 100: 0.8})


def test_a_job_that_is_right_passes(bank: Path) -> None:
    check(bank, form=[*FORMS, "half"], visibility=[50, 1.0], vis_probs=[1, 3], color=["random", [1, 2, 3]])
