"""Whole rows are made by calls that threads share: how many there are, and what they give back."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from accel_trainer.config import Job
from accel_trainer.data.augment.geometry import IMAGENET, RandomResizedCrop, byte_scale_and_shift
from accel_trainer.data.batch_plan import BatchPlan, TrainBatchPlanner
from accel_trainer.data.loader import ImageReader, Loader
from accel_trainer.data.native import library
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.native.pixels import OCCLUDER_NUMBERS
from accel_trainer.data.native.rows import Stages, StoredRows
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack.format import Packed
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.data.pipeline import training_views
from accel_trainer.data.rng.draws import Draws

COUNT, SIZE, BATCH, THREADS = 40, 32, 10, 3
STATISTICS = (*IMAGENET.mean, *IMAGENET.std)
ALL = ["cut", "cut_stored", "operate", "occlude", "normalize", "make_rows"]
JOBS: dict[str, dict[str, Any]] = {
    "crops": {},
    "occluders": {"Occlusion": {}},
    "RandAugment": {"transform_type": "default-randaugment"},
    "RandAugment and occluders": {"transform_type": "default-randaugment", "Occlusion": {}},
    "TrivialAugment, by the first rules": {"transform_type": "none-trivialaugment", "Occlusion": {}, "rules": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw pack of noise of several sizes, and occluders."""
    folder = tmp_path_factory.mktemp("rows")
    for number in range(COUNT):
        for split in ("train", "val"):
            (place := folder / "set" / split / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            shape = (40 + number % 7, 70 - number, 3)
            pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number:02}.png")
    images = open_data_set(str(folder / "set"), folder, None, None)
    pack(images, "set", folder / "set.pack", PackSettings(36, "raw"), 1, lambda *_: None)
    make_occluders(folder / "occluders", ["barVert04", "natural"], [40, 80], number=3, size=40, report=lambda _: None)
    return folder


@pytest.fixture
def packed(folder: Path, compiled: Kernel, monkeypatch: pytest.MonkeyPatch) -> Packed:
    """Newly opened, with the kernel in use."""
    monkeypatch.setattr(library, "_loaded", lambda: (compiled, library.COMPILED))
    images = open_data_set(str(folder / "set.pack"), folder, None, None).train
    assert isinstance(images, Packed)
    return images


def counted(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions for pixels that are called from now on."""
    calls: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        function = getattr(kernel, name)
        return lambda *given: (calls.append(name), function(*given))[1]

    for name in ALL:
        monkeypatch.setattr(kernel, name, noting(name))
    return calls


def given_of(folder: Path, name: str) -> dict[str, Any]:
    """What a job says."""
    given = {"image_size": SIZE, **JOBS[name]}
    if "Occlusion" in given:
        own = {"form": ["barVert04", "natural"], "visibility": "all", "occluder_dir": str(folder / "occluders")}
        given["Occlusion"] = own
    return given


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("name", JOBS)
def test_a_thread_makes_its_rows_of_a_batch_in_one_call(
    folder: Path,
    packed: Packed,
    compiled: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    make_job: Callable[..., Job],
    name: str,
    on_device: bool,
) -> None:
    given = given_of(folder, name)
    read = ImageReader(packed, training_views(make_job(**given), None, on_device=on_device), replace_corrupt=True)
    plans = list(TrainBatchPlanner(COUNT, BATCH, 1, 1, 0).micro_batches(0, 0))
    for plan in plans:
        read(plan)  # tables of operations are made, and kernels tried, when they are first needed
    for threads in (0, THREADS):
        calls = counted(compiled, monkeypatch)
        with Loader(threads) as loader:
            assert len(list(loader.batches(read, plans))) == len(plans)
        masks_for_the_device = ["cut"] if on_device and "Occlusion" in given else []
        assert set(calls) <= {"make_rows", *masks_for_the_device}
        assert len(plans) <= calls.count("make_rows") <= len(plans) * max(1, threads)
        monkeypatch.undo()
        monkeypatch.setattr(library, "_loaded", lambda: (compiled, library.COMPILED))


@pytest.mark.parametrize("name", JOBS)
def test_python_does_as_much_for_many_images_as_for_few(
    folder: Path, packed: Packed, make_job: Callable[..., Job], name: str
) -> None:
    read = ImageReader(packed, training_views(make_job(**given_of(folder, name)), None), replace_corrupt=True)
    few, many = (next(TrainBatchPlanner(COUNT, size, 1, 1, 0).micro_batches(0, 0)) for size in (BATCH, 3 * BATCH))
    for plan in (few, many):
        read(plan)  # what is made when it is first needed

    def calls(plan: BatchPlan) -> int:
        found: list[str] = []
        gc.disable()
        sys.setprofile(lambda frame, event, argument: found.append(event))
        try:
            read(plan)
        finally:
            sys.setprofile(None)
            gc.enable()
        return sum(event in ("call", "c_call") for event in found)

    assert calls(many) == calls(few) < 1000


def rows_of(packed: Packed, kernel: Kernel, out: torch.Tensor, count: int, stages: Stages | None = None) -> StoredRows:
    """Those of the first images, each once."""
    stored, crop = packed.stored(np.arange(count)), RandomResizedCrop(SIZE)
    assert stored is not None
    cuts = crop.cuts(stored.sizes, crop.draw(Draws(0, 1, 0, np.arange(count))))
    return StoredRows(kernel, stored, cuts, stages or Stages(), out)


def empty(count: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.zeros(count, 3, SIZE, SIZE, dtype=dtype)


def test_an_image_that_is_not_as_it_was_packed_is_given_back_and_no_other(
    packed: Packed, compiled: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksums = packed.records.copy()
    checksums["checksum"][[2, 5]] ^= 1
    monkeypatch.setattr(packed, "records", checksums)
    rows = rows_of(packed, compiled, out := empty(8), 8)
    assert [rows.make(), rows.make(), rows.make()] == [2, 5, None]
    assert rows.are_all_taken
    assert rows.make() is None
    expected = [True, True, False, True, True, False, True, True]
    assert rows.made().tolist() == [bool(row.any()) for row in out] == expected
    assert packed._checked[:8].astype(bool).tolist() == expected


def test_of_a_file_that_was_opened_again_nothing_counts_as_made(packed: Packed, compiled: Kernel) -> None:
    rows = rows_of(packed, compiled, empty(3), 3)
    assert rows.make() is None
    packed.file.num_openings += 1
    assert not rows.made().any()
    assert not packed._checked.any()
    rows = rows_of(packed, compiled, empty(3), 3)
    packed.file.num_openings += 1
    assert [rows.make() for _ in range(4)] == [0, 1, 2, None]
    rows = rows_of(packed, compiled, empty(3), 3)
    packed.file.has_failed = True
    assert [rows.make() for _ in range(4)] == [0, 1, 2, None]


def test_a_batch_is_the_same_where_its_file_is_opened_again_while_it_is_made(
    packed: Packed, compiled: Kernel, monkeypatch: pytest.MonkeyPatch, make_job: Callable[..., Job]
) -> None:
    read = ImageReader(packed, training_views(make_job(image_size=SIZE), None), replace_corrupt=True)
    (plan, *_) = TrainBatchPlanner(COUNT, BATCH, 1, 1, 0).micro_batches(0, 0)
    expected = read(plan).inputs.images
    make = compiled.make_rows

    def reopened(rows: int) -> int:
        packed.file.num_openings += 1
        return int(make(rows))

    monkeypatch.setattr(compiled, "make_rows", reopened)
    calls = counted(compiled, monkeypatch)
    assert torch.equal(read(plan).inputs.images, expected)
    assert calls.count("cut") == BATCH  # each is read, compared and cut anew


def test_occluders_whose_numbers_are_wrong_are_not_looked_at(packed: Packed, compiled: Kernel) -> None:
    sound = [0, packed.file.descriptor, 0, 1, 4, 4, 0, 0, 4, 4, SIZE, SIZE, 0, 0, 0, 0, 0, 0, 0]
    for column, value in ((None, 0), (3, 3), (4, 0), (5, -4), (6, 1), (8, 9), (10, 3)):
        table = np.zeros((3, OCCLUDER_NUMBERS), np.int64)
        table[1] = sound
        if column is not None:
            table[1, column] = value
        for stages, out in (
            (Stages(before=table), empty(3)),
            (Stages(after=table, statistics=STATISTICS), empty(3, torch.float32)),
        ):
            rows = rows_of(packed, compiled, out, 3, stages)
            assert rows.make() == (None if column is None else 1)


def test_what_the_kernel_does_not_take_is_refused(packed: Packed, compiled: Kernel) -> None:
    scale_and_shift = byte_scale_and_shift(IMAGENET)
    occluders, steps = np.zeros((3, OCCLUDER_NUMBERS), np.int64), np.zeros((3, 2, 2), np.int64)
    for out, stages in (
        (empty(2), Stages()),
        (empty(3), Stages(byte_scale_and_shift=scale_and_shift)),
        (empty(3, torch.float32), Stages()),
        (empty(3)[:, :, :, ::2], Stages()),
        (empty(3), Stages(before=occluders[:2])),
        (empty(3), Stages(before=occluders[:, :5])),
        (empty(3), Stages(after=occluders)),
        (empty(3), Stages(steps=steps[:2])),
    ):
        with pytest.raises(ValueError, match=r"room|contiguous|rows|occluders"):
            rows_of(packed, compiled, out, 3, stages)
    assert rows_of(packed, compiled, empty(3), 3, Stages(before=occluders, steps=steps)).make() is None
