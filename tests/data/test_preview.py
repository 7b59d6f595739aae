"""The picture of what a model sees has its pixels, and is the same every time."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from accel_trainer.config import Job
from accel_trainer.data.augment.mixing import MixedLabels
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.loader import Batch
from accel_trainer.data.preview import Sheet, _captions, _fitted, _wrapped, contact_sheet, render_preview
from accel_trainer.training.build import TrainingData, training_data

MakeJob = Callable[..., Job]
Pixels = npt.NDArray[np.uint8]
# As the sheet is laid out: a gap around the tiles, and a line for titles and captions.
GAP, LINE = 6, 17
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CLIPS = {"video": True, "num_views": 3, "architecture": "r3d_18"}


@pytest.fixture
def parts_of(make_job: MakeJob) -> Callable[..., TrainingData]:
    def parts(**given: Any) -> TrainingData:
        few = {"architecture": "squeezenet1_1", "dataset": "digits", "batch_size": 48, "image_size": 16}
        return training_data(make_job(**{**few, **given}), 1)

    return parts


def opened(png: bytes) -> Pixels:
    """The sheet's pixels: uint8 (height, width, 3)."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


class Layout:
    """Where the tiles of a sheet are: below a heading and titles, each above its caption and as many lines of notes as
    one has at most."""

    def __init__(self, sheet: Pixels, rows: int, columns: int, tile: int, *, titles: bool = False) -> None:
        self.sheet, self.tile, self.top = sheet, tile, LINE * (1 + titles)
        self.down, rest = divmod(len(sheet) - self.top - GAP, rows)
        self.notes, part = divmod(self.down - tile - LINE - GAP, LINE)
        assert (rest, part) == (0, 0)
        assert 0 <= self.notes <= 4
        assert sheet.shape[1] == columns * (tile + GAP) + GAP

    def at(self, row: int, column: int) -> Pixels:
        """uint8 (3, tile, tile)."""
        top, left = self.top + row * self.down, GAP + column * (self.tile + GAP)
        return self.sheet[top : top + self.tile, left : left + self.tile].transpose(2, 0, 1)

    def has_ink(self, row: int, column: int, line: int = 0) -> bool:
        """Whether there are words in a line below a tile."""
        top = self.top + row * self.down + self.tile + line * LINE
        return ink(self.sheet, top, GAP + column * (self.tile + GAP), self.tile)


def first_batch(parts: TrainingData, epoch: int = 1) -> Batch:
    """The whole first global batch of an epoch."""
    plan = next(parts.sampling.micro_batches(epoch, rank=0))
    return parts.train_reader(BatchPlan(plan.epoch, plan.step, plan.global_indices, plan.global_indices))


def seen(batch: Batch) -> Pixels:
    """uint8 (images, 3, size, size), clips as frames."""
    images = batch.inputs.on("cpu").flatten(0, -4).double().numpy()
    return np.round((images * STD[:, None, None] + MEAN[:, None, None]) * 255).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "given",
    [{}, {"num_views": 2, "transform_type": "contrastive"}, CLIPS, {"cutmix": True, "mixup": True}],
    ids=["images", "views", "clips", "mixtures"],
)
def test_the_same_job_draws_the_same_bytes_twice(parts_of: Callable[..., TrainingData], given: dict[str, Any]) -> None:
    first, second = (parts_of(**given) for _ in range(2))
    sheets = [render_preview(parts.train_reader, parts.sampling) for parts in (first, first, second)]
    assert sheets[0] == sheets[1] == sheets[2]
    assert render_preview(first.train_reader, first.sampling, epoch=2) != sheets[0]


@pytest.mark.parametrize("given", [{}, {"mixup": True, "num_views": 2}, CLIPS])
def test_the_picture_does_not_depend_on_processes_and_accumulation(make_job: MakeJob, given: dict[str, Any]) -> None:
    job = {"architecture": "squeezenet1_1", "dataset": "digits", "batch_size": 24, "image_size": 16, **given}
    sheets = set()
    for world_size, accumulation in ((1, 1), (2, 1), (1, 2), (2, 2)):
        parts = training_data(make_job(**job, gradient_accumulation=accumulation), world_size)
        sheets.add(render_preview(parts.train_reader, parts.sampling))
    assert len(sheets) == 1


@pytest.mark.parametrize(
    ("given", "rows", "columns"),
    [
        ({}, 8, 4),
        ({"batch_size": 6, "transform_type": "none"}, 2, 4),
        ({"batch_size": 3}, 1, 4),
        ({"num_views": 2}, 8, 2),
        ({"num_views": 2, "batch_size": 6}, 3, 2),
        ({"num_views": 5, "batch_size": 50}, 8, 5),
        (CLIPS, 8, 3),
        ({**CLIPS, "batch_size": 6}, 2, 3),
        ({**CLIPS, "num_views": 1, "Blur": {"sigmas": [2, 1]}, "batch_size": 3}, 3, 2),
    ],
)
def test_rows_are_images_and_columns_are_views_or_frames(
    parts_of: Callable[..., TrainingData], given: dict[str, Any], rows: int, columns: int
) -> None:
    parts = parts_of(**given)
    sheet = opened(render_preview(parts.train_reader, parts.sampling))
    layout = Layout(sheet, rows, columns, 224, titles=parts.train_reader.views.num_views > 1)
    images = seen(first_batch(parts))
    for row, column in {(0, 0), (0, columns - 1), (rows - 1, 0)}:
        number = row * columns + column
        if number < len(images):
            np.testing.assert_array_equal(layout.at(row, column), images[number].repeat(14, axis=1).repeat(14, axis=2))


@pytest.mark.parametrize(("size", "enlarged"), [(224, 1), (225, 1), (112, 2), (223, 2), (33, 7), (8, 28)])
def test_tiles_have_the_pixels_of_the_batch_each_repeated_where_they_are_small(
    parts_of: Callable[..., TrainingData], size: int, enlarged: int
) -> None:
    parts = parts_of(image_size=size, batch_size=5, randomerase="random")
    sheet = opened(render_preview(parts.train_reader, parts.sampling))
    tile = size * enlarged
    layout = Layout(sheet, 2, 4, tile)
    for number, image in enumerate(seen(first_batch(parts))):
        expected = image.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
        np.testing.assert_array_equal(layout.at(number // 4, number % 4), expected)
    assert (layout.at(1, 3) == 255).all()  # there is no eighth image


@pytest.mark.parametrize("mixing", [{"cutmix": True}, {"mixup": True}])
@pytest.mark.parametrize("batch_size", [6, 48])
def test_mixtures_are_those_of_the_batch_where_only_part_is_rendered(
    parts_of: Callable[..., TrainingData], mixing: dict[str, Any], batch_size: int
) -> None:
    parts = parts_of(image_size=224, batch_size=batch_size, **mixing)
    sheet = opened(render_preview(parts.train_reader, parts.sampling))
    layout = Layout(sheet, 2 if batch_size == 6 else 8, 4, 224)
    images = seen(first_batch(parts))
    for number in (0, 1, 5):
        difference = layout.at(number // 4, number % 4).astype(int) - images[number]
        assert np.abs(difference).max() == 0


def test_what_is_drawn_on_the_device_looks_the_same(make_job: MakeJob) -> None:
    job = make_job(architecture="squeezenet1_1", dataset="digits", batch_size=8, image_size=16, randomerase=0.5)
    loader, device = (training_data(job, 1, augment_on_device=on_device) for on_device in (False, True))
    sheets = [opened(render_preview(parts.train_reader, parts.sampling)) for parts in (loader, device)]
    np.testing.assert_allclose(sheets[0].astype(int), sheets[1].astype(int), atol=1)


# -- words ------------------------------------------------------------------------------------------------------


def ink(sheet: Pixels, top: int, left: int, width: int) -> bool:
    return bool((sheet[top : top + LINE, left : left + width] < 128).any())


def test_every_tile_has_a_caption_and_every_column_of_views_a_title(parts_of: Callable[..., TrainingData]) -> None:
    parts = parts_of(num_views=3, batch_size=6)
    sheet = opened(render_preview(parts.train_reader, parts.sampling, name="a job"))
    layout = Layout(sheet, 2, 3, 224, titles=True)
    assert ink(sheet, 0, GAP, 96)  # the name of the job
    for column in range(3):
        assert ink(sheet, LINE, GAP + column * (224 + GAP), 96)
        assert all(layout.has_ink(row, column) for row in range(2))


def test_what_was_drawn_stands_below_each_view(parts_of: Callable[..., TrainingData]) -> None:
    parts = parts_of(batch_size=4)
    layout = Layout(opened(render_preview(parts.train_reader, parts.sampling)), 1, 4, 224)
    assert layout.notes >= 1
    assert all(layout.has_ink(0, column, line=1) for column in range(4))
    plain = parts_of(batch_size=4, transform_type="none")
    assert Layout(opened(render_preview(plain.train_reader, plain.sampling)), 1, 4, 224).notes == 0


def test_captions_are_the_names_of_classes() -> None:
    assert _captions(torch.tensor([2, 0, 0]), ["cat", "dog", "emu"]) == ["emu", "cat", "cat"]


def test_captions_of_mixtures_name_both_classes_with_their_shares() -> None:
    labels = MixedLabels(torch.tensor([0, 1, 2]), torch.tensor([1, 1, 0]), torch.tensor([0.75, 0.3333, 0.0]))
    assert _captions(labels, ["cat", "dog", "emu"]) == ["75% cat, 25% dog", "33% dog, 67% dog", "0% emu, 100% cat"]


def test_frames_of_a_clip_have_the_caption_of_the_clip(
    parts_of: Callable[..., TrainingData], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def note(tiles: torch.Tensor, captions: list[str], columns: int, sheet: Sheet) -> bytes:
        assert len(sheet.notes) == len(tiles)
        told.update(tiles=len(tiles), captions=captions, titles=sheet.titles, columns=columns, heading=sheet.heading)
        return b""

    monkeypatch.setattr("accel_trainer.data.preview.contact_sheet", note)
    for given, titles in (
        (CLIPS, ["frame 0", "frame 1", "frame 2"]),
        ({"num_views": 3}, ["view 0", "view 1", "view 2"]),
    ):
        parts = parts_of(batch_size=24, **given)
        render_preview(parts.train_reader, parts.sampling)
        labels = parts.train_reader.source.labels[next(parts.sampling.micro_batches(1, 0)).global_indices]
        assert len(set(labels)) > 1
        assert told == {
            "tiles": 24,
            "captions": [str(x) for x in labels for _ in range(3)],
            "titles": titles,
            "columns": 3,
            "heading": "epoch 1",
        }
    single = parts_of(batch_size=6)
    render_preview(single.train_reader, single.sampling, epoch=7, name="a job")
    assert (told["titles"], told["columns"], told["heading"]) == ([], 4, "a job, epoch 7")


@pytest.mark.parametrize("text", ["", "7", "a" * 200, "the name of a class that nobody can read in so little room"])
@pytest.mark.parametrize("width", [3, 40, 96])
def test_a_caption_that_is_too_long_is_cut_to_fit(text: str, width: int) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    fitted = _fitted(text, width, font)
    if font.getlength(text) <= width:
        assert fitted == text
        return
    assert fitted.endswith("…")
    kept = fitted.removesuffix("…")
    assert text.startswith(kept)
    assert font.getlength(fitted) <= width or not kept
    assert font.getlength(text[: len(kept) + 1] + "…") > width


def test_names_with_any_characters_can_be_drawn() -> None:
    tiles = torch.zeros(2, 3, 100, 100, dtype=torch.uint8)
    sheet = opened(contact_sheet(tiles, ["Ünïcödé 犬 🐶", "a\nb"], 4, Sheet("epoch 1")))
    Layout(sheet, 1, 4, 100)


def test_notes_are_wrapped_at_words_and_cut_after_four_lines() -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    assert _wrapped("", 100, font) == []
    lines = _wrapped(" ".join(["crop 20x25 at 3,1,"] * 20), 120, font)
    assert len(lines) == 4
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 120 for line in lines)
    assert _wrapped("crop 2x3 at 0,1, flipped", 500, font) == ["crop 2x3 at 0,1, flipped"]
