"""The kernel puts occluders in front of images with the bits of torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accel_trainer.config.augmentations import Occlusion
from accel_trainer.core.errors import UserError
from accel_trainer.data.augment.geometry import IMAGENET, Statistics, normalize, to_uint8
from accel_trainer.data.augment.occlusion import Occlude, OcclusionParameters, covers_as_torch
from accel_trainer.data.native import library, pixels
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.rng.draws import Draws

ROWS = 24
STATISTICS = [None, IMAGENET, Statistics((0.5, 0.1, 0.9), (1.0, 0.3, 0.01))]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Opacities, painted masks, both of odd sizes, and floats, which are not stored as they are read."""
    folder = tmp_path_factory.mktemp("occluders")
    for name, shape in (("alpha", (5, 1, 64, 80)), ("painted", (4, 4, 61, 33)), ("floats", (3, 1, 40, 40))):
        masks = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        (folder / name / "50").mkdir(parents=True)
        torch.save(masks / 255 if name == "floats" else masks, folder / name / "50" / "occluders.pt")
    return folder


def drawn_of(bank: Path, form: Any, size: int, **given: Any) -> tuple[Occlude, OcclusionParameters]:
    section = Occlusion.model_validate({"occluder_dir": str(bank), "form": form, "probability": 0.8, **given})
    effect = Occlude(section, size, flips_with_crop=True)
    return effect, effect.prepare(effect.draw(Draws(0, 1, 0, np.arange(ROWS))))


def images_of(size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (ROWS, 3, size, size), dtype=np.uint8))


def by_torch(
    effect: Occlude, drawn: OcclusionParameters, images: torch.Tensor, statistics: Statistics | None
) -> torch.Tensor:
    floats = effect.apply(images.to(torch.float32).div_(255), effect.fetch(drawn))
    if statistics is not None:
        return normalize(floats, statistics)
    return to_uint8(floats.mul_(255).round_().clamp_(0, 255))


@pytest.fixture
def use(compiled: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(library, "_loaded", lambda: (compiled, library.COMPILED))
    return compiled


@pytest.mark.parametrize("given", [{}, {"random_resize": True, "color": [[250, 3, 77], "random"]}, {"probability": 1}])
@pytest.mark.parametrize("size", [1, 7, 45, 224])
@pytest.mark.parametrize("form", ["alpha", "painted", ["alpha", "painted"]])
@pytest.mark.parametrize("statistics", STATISTICS)
def test_occluders_have_the_bits_of_torch(
    use: Kernel, bank: Path, form: Any, size: int, given: dict[str, Any], statistics: Statistics | None
) -> None:
    effect, drawn = drawn_of(bank, form, size, **given)
    images = images_of(size)
    expected = by_torch(effect, drawn, images, statistics)
    out = None if statistics is None else torch.full((ROWS, 3, size, size), 77.0)
    assert effect.cover(images, drawn, out, statistics) == ROWS
    assert torch.equal(images if out is None else out, expected)


def test_masks_that_are_not_stored_as_they_are_read_are_left_to_torch(use: Kernel, bank: Path) -> None:
    effect, drawn = drawn_of(bank, ["alpha", "floats"], 32)
    assert effect.cover(images_of(32), drawn, torch.empty(ROWS, 3, 32, 32), IMAGENET) == 0
    effect, drawn = drawn_of(bank, "alpha", 32, color="pink_noise")
    assert effect.cover(images_of(32), drawn, torch.empty(ROWS, 3, 32, 32), IMAGENET) == 0


@pytest.mark.parametrize("statistics", STATISTICS[:2])
def test_of_a_file_that_has_become_shorter_the_rest_is_left_to_say_so(
    use: Kernel, tmp_path: Path, statistics: Statistics | None
) -> None:
    (tmp_path / "alpha" / "50").mkdir(parents=True)
    torch.save(torch.full((9, 1, 30, 40), 200, dtype=torch.uint8), tmp_path / "alpha" / "50" / "occluders.pt")
    effect, drawn = drawn_of(tmp_path, "alpha", 32)
    images = images_of(32)
    expected = by_torch(effect, drawn, images.clone(), statistics)
    (masks,) = effect.all_masks
    place = masks.place(5)
    assert place is not None
    with place.file.path.open("r+b") as file:
        file.truncate(place.offset)
    out = torch.empty(ROWS, 3, 32, 32)
    done = effect.cover(images, drawn, None if statistics is None else out, statistics)
    beyond = np.flatnonzero((drawn.masks >= 0) & (drawn.item >= 5))
    assert done == beyond[0] > 0
    assert torch.equal((images if statistics is None else out)[:done], expected[:done])
    with pytest.raises(UserError, match=r"cannot read .*occluders\.pt"):
        effect.fetch(drawn[done:])


def test_a_kernel_of_other_bits_is_found_out(compiled: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert covers_as_torch.__wrapped__(compiled)
    monkeypatch.setattr(compiled, "occlude", lambda *_: 0)
    assert not covers_as_torch.__wrapped__(compiled)


@pytest.mark.parametrize(
    ("column", "value"),
    [(pixels.ROW, 2), (pixels.ROW, -1), (pixels.CHANNELS, 3), (pixels.HEIGHT, 3), (pixels.CUT, 1), (pixels.CUT + 2, 0)],
)
def test_what_would_be_read_or_written_beside_images_and_masks_is_not(
    compiled: Kernel, tmp_path: Path, column: int, value: int
) -> None:
    (tmp_path / "mask").write_bytes(bytes(16))
    with (tmp_path / "mask").open("rb") as file:
        sound = [0, file.fileno(), 0, 1, 4, 4, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0]
        table, out = np.array([sound]), torch.empty(2, 3, 4, 4)
        images, numbers = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), (0.5,) * 6
        assert pixels.occlude(compiled, images, table, numbers, out) == 2
        table[0, column] = value
        assert pixels.occlude(compiled, images, table, numbers, out) == 0
        with pytest.raises(ValueError, match="room"):
            pixels.occlude(compiled, images, table, numbers, out[:1])
