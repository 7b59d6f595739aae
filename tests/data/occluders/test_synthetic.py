import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accel_trainer.core.errors import UserError
from accel_trainer.data.occluders.bank import open_forms
from accel_trainer.data.occluders.synthetic import FORMS, _chebyshev, _dots, make_occluders

make = functools.partial(make_occluders, report=lambda line: None)
LEVELS = (10, 30, 50, 70, 90)


def load(folder: Path, form: str, visibility: int) -> torch.Tensor:
    masks: torch.Tensor = torch.load(folder / form / str(visibility) / "occluders.pt", weights_only=True)
    return masks


def alphas(folder: Path, form: str, visibility: int, **options: Any) -> torch.Tensor:
    """Newly made masks: bool (number, size, size), where they cover."""
    make(folder, [form], [visibility], **options)
    return load(folder, form, visibility)[:, -1] > 0


def changes(lines: torch.Tensor) -> torch.Tensor:
    """How often neighbours differ along the last dimension."""
    return (lines[..., 1:] != lines[..., :-1]).sum(-1)


@pytest.mark.parametrize("size", [64, 90])
@pytest.mark.parametrize("form", FORMS)
def test_every_mask_covers_what_its_visibility_leaves(tmp_path: Path, form: str, size: int) -> None:
    make(tmp_path, [form], LEVELS, number=3, size=size)
    for visibility in LEVELS:
        masks = load(tmp_path, form, visibility)
        assert masks.dtype == torch.uint8
        assert masks.shape == (3, 4 if form == "natural" else 1, size, size)
        assert set(masks[:, -1].unique().tolist()) == {0, 255}
        coverage = masks[:, -1].float().mean((1, 2)) / 255
        assert (coverage - (1 - visibility / 100)).abs().max() < 1 / size**2


@pytest.mark.parametrize(("visibility", "covered"), [(1, 9), (99, 0)])
def test_tiny_masks_are_covered_to_the_nearest_pixel(tmp_path: Path, visibility: int, covered: int) -> None:
    for form in FORMS:
        assert alphas(tmp_path, form, visibility, number=2, size=3).sum((1, 2)).tolist() == [covered] * 2
        assert alphas(tmp_path / "1", form, visibility, number=2, size=1).shape == (2, 1, 1)


@pytest.mark.parametrize("form", FORMS)
def test_every_synthetic_mask_differs_from_the_others(tmp_path: Path, form: str) -> None:
    masks = alphas(tmp_path, form, 50, number=6, size=97)
    assert len({mask.numpy().tobytes() for mask in masks}) == 6


def test_the_bank_opens_all_forms_of_synthetic_masks(tmp_path: Path) -> None:
    make(tmp_path, list(FORMS), [90, 10], number=2, size=64)
    forms = open_forms(tmp_path, list(FORMS), None)
    assert [form.name for form in forms] == list(FORMS)
    for form in forms:
        assert list(form.levels) == [10, 90]
        assert {masks.num_channels for masks in form.levels.values()} == {4 if form.name == "natural" else 1}


# -- the same command makes the same files ----------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_command_makes_the_same_files(tmp_path: Path) -> None:
    make(tmp_path / "a", list(FORMS), [20, 60], number=3, size=64, seed=5)
    torch.manual_seed(1)
    make(tmp_path / "b", list(FORMS), [20, 60], number=3, size=64, seed=5)
    assert len(contents(tmp_path / "a")) == 2 * len(FORMS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_order_and_the_number_of_masks_change_none(tmp_path: Path) -> None:
    make(tmp_path / "a", ["polkadot", "natural"], [20, 60], number=3, size=64)
    make(tmp_path / "b", ["natural"], [60], number=2, size=64)
    make(tmp_path / "b", ["natural", "polkadot"], [20], number=2, size=64)
    for form, visibility in (("natural", 60), ("natural", 20), ("polkadot", 20)):
        assert torch.equal(load(tmp_path / "a", form, visibility)[:2], load(tmp_path / "b", form, visibility))


def test_another_seed_gives_other_synthetic_masks_everywhere(tmp_path: Path) -> None:
    for form in FORMS:
        one, other = (alphas(tmp_path / str(seed), form, 50, number=3, size=97, seed=seed) for seed in (0, 1))
        assert (one != other).flatten(1).any(1).all()


def test_masks_of_another_visibility_are_not_the_same_ones_grown(tmp_path: Path) -> None:
    for form in FORMS:
        more, less = (alphas(tmp_path, form, visibility, number=2, size=97) for visibility in (40, 50))
        assert (less & ~more).flatten(1).any(1).all()


# -- what they look like ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 8, 16])
def test_bars_are_as_many_as_their_form_name_has(tmp_path: Path, count: int) -> None:
    horizontal = alphas(tmp_path, f"barHorz{count:02}", 50, number=5, size=256)
    vertical = alphas(tmp_path, f"barVert{count:02}", 50, number=5, size=256)
    # A column of the picture goes in and out of each bar once, but for those at the ends and a ragged row at edges.
    down = changes(horizontal.transpose(1, 2)).float().median(dim=1).values
    across = changes(vertical).float().median(dim=1).values
    assert ((down - 2 * count).abs() <= 1).all()
    assert ((across - 2 * count).abs() <= 1).all()
    # Along a bar nothing changes, but where its edge row is only partly covered.
    inside = changes(horizontal) == 0
    assert (inside.sum(1) >= 256 - 2 * count - 1).all()
    assert ((changes(vertical.transpose(1, 2)) == 0).sum(1) >= 256 - 2 * count - 1).all()


def along_diagonals(masks: torch.Tensor) -> torch.Tensor:
    """Mean number of changes of each mask along its diagonals: (number, 2), those that fall and those that rise."""
    means = []
    for picture in (masks, masks.flip(2)):
        inner = [changes(picture.diagonal(offset, 1, 2)).float() for offset in range(-60, 61)]
        means.append(torch.stack(inner).mean(0))
    return torch.stack(means, dim=1)


@pytest.mark.parametrize("count", [4, 8, 16])
def test_oblique_bars_are_diagonal_either_way_and_as_wide_as_upright_ones(tmp_path: Path, count: int) -> None:
    masks = alphas(tmp_path, f"barObl{count:02}", 50, number=12, size=128)
    along = along_diagonals(masks)
    rising = along[:, 1] < along[:, 0]
    assert 0 < rising.sum() < 12
    assert (along.min(1).values < 2).all()
    # Across the picture, in a row, they are as many as upright ones by the square root of 2 fewer.
    crossed = changes(masks).float().mean(1)
    assert ((crossed - 2 * count / 2**0.5).abs() < 1.5).all()


def test_crossed_bars_are_bars_both_ways(tmp_path: Path) -> None:
    cardinal = alphas(tmp_path, "crossBarCardinal", 50, number=12, size=128)
    assert (cardinal.all(1).sum(1) >= 4).all()
    assert (cardinal.all(2).sum(1) >= 4).all()
    for mask in alphas(tmp_path, "crossBarOblique", 50, number=12, size=128):
        for picture in (mask, mask.flip(1)):
            full = sum(bool(picture.diagonal(offset).all()) for offset in range(-60, 61))
            assert full >= 4


@pytest.mark.parametrize(("form", "least", "most"), [("polkadot", 0.70, 0.84), ("polkasquare", 0.95, 1.0)])
def test_dots_are_round_and_squares_are_square(tmp_path: Path, form: str, least: float, most: float) -> None:
    for mask in alphas(tmp_path, form, 90, number=5, size=256):
        filled = [filling for patch in patches(mask) if (filling := how_full(patch))]
        assert 9 <= len(filled) <= 170
        assert least < sorted(filled)[len(filled) // 2] <= most


def test_squares_go_on_across_the_cells_of_their_grid() -> None:
    for seed in range(5):
        field = _dots(np.random.default_rng(seed), 128, _chebyshev)
        for axis in (0, 1):
            # From one pixel to the next a distance changes by no more than a pixel: at most 12 cells of 128.
            assert abs(np.diff(field, axis=axis)).max() < 12.01 / 128


def patches(mask: torch.Tensor) -> list[list[tuple[int, int]]]:
    """The pixels of each connected patch."""
    left = {(y, x) for y, x in mask.nonzero().tolist()}
    found = []
    while left:
        patch, edge = [], [left.pop()]
        while edge:
            y, x = edge.pop()
            patch.append((y, x))
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            edge += near
        found.append(patch)
    return found


def how_full(patch: list[tuple[int, int]]) -> float | None:
    """The share of its bounding box that a patch fills (a disc: 0.785); None for specks and for those cut off."""
    ys, xs = zip(*patch, strict=True)
    if len(patch) < 20 or min(*ys, *xs) == 0 or max(*ys, *xs) == 255:
        return None
    return len(patch) / ((max(ys) - min(ys) + 1) * (max(xs) - min(xs) + 1))


def test_mud_is_smooth_and_foliage_is_not(tmp_path: Path) -> None:
    mud = changes(alphas(tmp_path, "mudSplash", 50, number=10, size=256)).float().mean()
    foliage = changes(alphas(tmp_path, "natural_silhouette", 50, number=10, size=256)).float().mean()
    assert 2 < mud < 14
    assert mud < foliage < 50


def test_a_silhouette_has_the_shapes_of_natural(tmp_path: Path) -> None:
    make(tmp_path, ["natural", "natural_silhouette"], [30], number=3, size=64)
    assert torch.equal(load(tmp_path, "natural", 30)[:, 3:], load(tmp_path, "natural_silhouette", 30))


def test_a_texture_is_green_and_brown_and_smooth_where_it_is_transparent_too(tmp_path: Path) -> None:
    make(tmp_path, ["natural"], [50], number=5, size=128)
    rgba = load(tmp_path, "natural", 50).float()
    red, green, blue, alpha = rgba.unbind(1)
    assert ((red > blue) | (green > blue)).float().mean() > 0.99
    assert 0.2 < (green > red).float().mean() < 0.8
    for part in (alpha > 0, alpha == 0):
        assert green[part].std() > 15
        assert 40 < green[part].mean() < 150
    # 1/f: near pixels are alike, white noise would not be.
    steps = (green[:, :, 1:] - green[:, :, :-1]).abs().mean()
    assert steps < 0.6 * green.std()


# -- what cannot be made ----------------------------------------------------------------------------------------


def problems(folder: Path, *arguments: object, **options: int) -> list[str]:
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        make(folder, *arguments, **options)  # type: ignore[arg-type]
    assert contents(folder) == before
    return caught.value.problems


def test_an_unknown_form_of_masks_is_reported(tmp_path: Path) -> None:
    assert problems(tmp_path / "new", ["mudsplash", "barHorz04"], [50]) == [
        f"no form 'mudsplash'; there are {', '.join(FORMS)}; did you mean 'mudSplash' or 'mud_splash'?"
    ]
    assert not (tmp_path / "new").exists()


def test_all_mistakes_of_the_arguments_are_reported_at_once(tmp_path: Path) -> None:
    assert problems(tmp_path, ["clouds"], [0, 50, 100], number=0, size=-1) == [
        f"no form 'clouds'; there are {', '.join(FORMS)}",
        "visibility 0: give a percentage from 1 to 99",
        "visibility 100: give a percentage from 1 to 99",
        "number 0: give at least 1",
        "size -1: give at least 1",
    ]


@pytest.mark.parametrize("there", ["occluders.pt", "a.png"])
def test_what_is_there_is_left_as_it_is(tmp_path: Path, there: str) -> None:
    path = tmp_path / "mudSplash" / "30" / there
    path.parent.mkdir(parents=True)
    path.write_text("dear to its owner")
    assert problems(tmp_path, ["polkadot", "mudSplash"], [20, 30]) == [
        f"{path.parent} already holds occluders; choose another folder, or delete it"
    ]


def test_an_unwritable_folder_for_masks_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mudSplash").write_text("a file")
    path = tmp_path / "mudSplash" / "30" / "occluders.pt"
    assert problems(tmp_path, ["mudSplash"], [30], number=1, size=64) == [f"cannot write {path}: Not a directory"]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_the_disk(masks: torch.Tensor, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    told = problems(tmp_path, ["mudSplash"], [30], number=1, size=64)
    assert told == [f"cannot write {tmp_path}/mudSplash/30/occluders.pt: No space left on device"]


def test_each_file_is_reported_once_it_is_written(tmp_path: Path) -> None:
    lines: list[str] = []

    def told(line: str) -> None:
        assert Path(line.split(":")[0]).is_file()
        lines.append(line)

    make_occluders(tmp_path, ["polkadot", "polkadot", "barObl04"], [20, 10, 20], number=2, size=64, report=told)
    assert lines == [
        f"{tmp_path}/{form}/{visibility}/occluders.pt: 2 masks"
        for form in ("polkadot", "barObl04")
        for visibility in (10, 20)
    ]
