"""Rows of images that are stored as they are, in one call, are those of images that are read and then cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accel_trainer.data.augment.geometry import IMAGENET, CenterCrop, RandomResizedCrop, byte_scale_and_shift, cut
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.dataset import ClassSubset
from accel_trainer.data.loader import READ_AHEAD, ImageReader, Loader
from accel_trainer.data.native import library
from accel_trainer.data.native.images import Images
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.native.stored import StoredCuts
from accel_trainer.data.pack.format import Packed, open_packed_split
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.data.rng.draws import Draws
from accel_trainer.data.sources.folders import open_folders
from accel_trainer.data.views import Augmentations, Views

COUNT, VIEWS, SIZE = 12, 2, 20


@pytest.fixture
def packed(
    tmp_path: Path, write_image: Callable[..., Path], compiled: Kernel, monkeypatch: pytest.MonkeyPatch
) -> Packed:
    """Two classes of six images each, which are noise, of several sizes."""
    from PIL import Image

    for number in range(COUNT):
        for split in ("train", "val"):
            path = write_image(tmp_path / "set" / split / "ab"[number // 6] / f"{number:02}.png")
            shape = (31 + number, 60 - 2 * number, 3)
            Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)).save(path)
    pack(open_folders(tmp_path, "set", ()), "set", tmp_path / "set.pack", PackSettings(32, "raw"), 1, lambda *_: None)
    monkeypatch.setattr(library, "_loaded", lambda: (compiled, library.COMPILED))
    return open_packed_split(tmp_path / "set.pack", "train")


def stored_cuts(packed: Any, indices: np.ndarray, crop: Any, kernel: Kernel) -> StoredCuts:
    stored = packed.stored(indices)
    assert stored is not None
    numbers = crop.draw(Draws(0, 1, 0, indices, num_views=VIEWS))
    return StoredCuts(kernel, stored, crop.cuts(stored.sizes, numbers))


@pytest.mark.parametrize("crop", [RandomResizedCrop(SIZE), RandomResizedCrop(SIZE, (0.05, 0.1)), CenterCrop(SIZE)])
@pytest.mark.parametrize("statistics", [None, IMAGENET])
def test_rows_are_those_of_images_that_are_read_first(
    packed: Packed, compiled: Kernel, crop: Any, statistics: Any
) -> None:
    indices = np.array([7, 0, 11, 7, 3])
    images = Images.of([packed.read(index) for index in indices.tolist()])
    packed._checked[:] = 0
    expected = torch.empty(len(indices) * VIEWS, 3, SIZE, SIZE, dtype=torch.uint8 if statistics is None else None)
    cut(images, crop.cuts(images, crop.draw(Draws(0, 1, 0, indices, num_views=VIEWS))), expected, statistics)
    for is_compared in (True, False):
        cuts = stored_cuts(packed, indices, crop, compiled)
        assert (packed._checked[indices] == 0).all() == is_compared
        out = torch.full_like(expected, 77)
        normalization = None if statistics is None else byte_scale_and_shift(statistics)
        assert cuts.cut(slice(2, 5), out, 2 * VIEWS, normalization)
        assert (out[: 2 * VIEWS] == 77).all()
        assert cuts.cut(slice(0, 2), out, 0, normalization)
        assert torch.equal(out, expected)


def test_what_is_not_as_it_was_packed_is_left_to_be_said_of_the_image(packed: Packed, compiled: Kernel) -> None:
    out, crop = torch.empty(2 * VIEWS, 3, SIZE, SIZE, dtype=torch.uint8), RandomResizedCrop(SIZE)
    with packed.file.path.open("r+b") as file:
        file.seek(int(packed.records["offset"][4]))
        file.write(b"\xff\x00\xff")
        file.truncate(int(packed.records["offset"][11]))
    assert not stored_cuts(packed, np.array([3, 4]), crop, compiled).cut(slice(0, 2), out, 0, None)
    assert packed._checked[[3, 4]].tolist() == [0, 0]
    assert not stored_cuts(packed, np.array([3, 11]), crop, compiled).cut(slice(0, 2), out, 0, None)
    cuts = stored_cuts(packed, np.array([3, 5]), crop, compiled)
    assert cuts.cut(slice(0, 2), out, 0, None)
    packed.file.num_openings += 1  # opened again: compared again
    assert not cuts.cut(slice(0, 2), out, 0, None)


def test_no_row_is_written_beside_its_room_and_none_read_beside_its_image(packed: Packed, compiled: Kernel) -> None:
    indices, crop = np.arange(4), RandomResizedCrop(SIZE)
    cuts = stored_cuts(packed, indices, crop, compiled)
    out = torch.empty(4 * VIEWS, 3, SIZE, SIZE, dtype=torch.uint8)
    with pytest.raises(ValueError, match="room"):
        cuts.cut(slice(0, 4), out, 1, None)
    with pytest.raises(ValueError, match="images"):
        cuts.cut(slice(2, 5), out, 0, None)
    with pytest.raises(ValueError, match="contiguous"):
        cuts.cut(slice(0, 4), out, 0, byte_scale_and_shift(IMAGENET))
    for column, value in ((0, -1), (1, 57), (2, 99), (4, SIZE - 1), (6, 1), (8, 5)):
        stored = packed.stored(indices)
        assert stored is not None
        wrong = crop.cuts(stored.sizes, crop.draw(Draws(0, 1, 0, indices)))
        wrong[1, column] = value
        if column < 8:
            assert not StoredCuts(compiled, stored, wrong).cut(slice(0, 4), out, 0, None), column
            images = Images.of([packed.read(index) for index in range(4)])
            with pytest.raises(ValueError, match="not in its image"):
                cut(images, wrong, out[:4])


@pytest.mark.parametrize("threads", [0, 2])
def test_the_system_is_told_of_images_some_batches_before_they_are_read(
    packed: Packed, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    told: list[list[int]] = []
    monkeypatch.setattr(Packed, "will_need", lambda self, indices: told.append(indices.tolist()))
    plans = [BatchPlan(1, step, each := np.array([step, step + 6]), each) for step in range(6)]
    read = ImageReader(ClassSubset(packed, [1, 0]), Views(Augmentations(RandomResizedCrop(SIZE))), replace_corrupt=True)
    asked: list[int] = []

    def steps() -> Any:
        for plan in plans:
            asked.append(plan.step)
            yield plan

    with Loader(threads) as loader:
        batches = loader.batches(read, steps())
        next(batches)
        assert max(asked) >= READ_AHEAD
        assert len(list(batches)) == len(plans) - 1
    # The images of the subset are those of the pack by another number.
    assert sorted(told) == sorted(read.source._indices[plan.indices].tolist() for plan in plans)  # type: ignore[attr-defined]


def test_a_system_that_is_told_reads_no_other_bytes(packed: Packed, compiled: Kernel) -> None:
    places = []
    compiled.will_need = lambda file, address, count: places.append((file, count))
    packed.will_need(np.array([5, 1, 3]))
    assert places == [(packed.file.descriptor, 3)]


def test_where_images_are_is_found_by_one_call_as_their_records_say(packed: Packed, compiled: Kernel) -> None:
    indices = np.array([7, 0, 11, 7])
    packed._checked[[0, 3]] = packed.file.num_openings
    found = packed.stored(indices)
    assert found is not None
    records = packed.records[indices]
    size = records["size"].astype(np.int64) + records["name_size"]
    columns = records["offset"], records["height"], records["width"], indices != 0, size, records["checksum"]
    assert np.array_equal(found.table, np.stack([column.astype(np.int64) for column in columns], axis=1))
    assert found.sizes.sizes == np.stack([records["height"], records["width"]], axis=1).tolist()
    for wrong in (-1, len(packed.records)):
        with pytest.raises(IndexError):
            packed.stored(np.array([0, wrong]))
