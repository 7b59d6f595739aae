"""Images of a pack that are read together are those that are read one by one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from accel_trainer.core.errors import UserError
from accel_trainer.data.dataset import ClassSubset, ReadsTogether, Splits
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.pack import format as pack_format
from accel_trainer.data.pack.format import Packed, open_pack
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.data.sources.folders import open_folders


@pytest.fixture
def packed(
    tmp_path: Path, write_image: Callable[..., Path], compiled: Kernel, monkeypatch: pytest.MonkeyPatch
) -> Packed:
    """Two classes of six images each."""
    for split in ("train", "val"):
        for number in range(12):
            write_image(tmp_path / "set" / split / "ab"[number // 6] / f"{number}.png", brightness=20 * number)
    pack(open_folders(tmp_path, "set", ()), "set", tmp_path / "set.pack", PackSettings(32, "raw"), 1, lambda *_: None)
    monkeypatch.setattr(pack_format, "kernel", lambda: compiled)
    splits: Splits = open_pack(tmp_path / "set.pack")
    assert isinstance(splits.train, Packed)
    return splits.train


def test_images_are_those_that_are_read_one_by_one(packed: Packed) -> None:
    wanted = np.array([7, 0, 11, 7, 3])
    for _ in range(2):  # compared with their checksums, and not again
        images = packed.read_together(wanted)
        assert images is not None
        assert len(images) == len(wanted)
        assert all(torch.equal(image, packed.read(index)) for image, index in zip(images, wanted.tolist(), strict=True))
        assert torch.equal(next(iter(images.some(slice(2, 3)))), packed.read(11))


def test_only_as_many_are_read_as_stay_in_a_cache(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    three = packed.records[:3]
    monkeypatch.setattr(pack_format, "TOGETHER", int((three["size"] + three["name_size"]).sum()))
    images = packed.read_together(np.arange(12))
    assert images is not None
    assert len(images) == 3
    monkeypatch.setattr(pack_format, "TOGETHER", 1)
    images = packed.read_together(np.arange(12))
    assert images is not None
    assert len(images) == 1


def test_a_subset_reads_those_of_its_source(packed: Packed) -> None:
    subset = ClassSubset(packed, [1])
    assert isinstance(subset, ReadsTogether)
    images = subset.read_together(np.array([2]))
    assert images is not None
    assert torch.equal(next(iter(images)), packed.read(8))


def test_what_is_wrong_is_left_to_be_said_of_the_image(packed: Packed) -> None:
    with packed.file.path.open("r+b") as file:
        file.seek(int(packed.records["offset"][4]))
        file.write(b"\xff\x00\xff")
    assert packed.read_together(np.array([3, 4])) is None
    assert packed.read_together(np.array([3, 5])) is not None
    with pytest.raises(UserError, match="image 4 is not what was packed"):
        packed.read(4)


def test_a_file_that_has_become_shorter_is_no_crash(packed: Packed) -> None:
    with packed.file.path.open("r+b") as file:
        file.truncate(int(packed.records["offset"][11]))
    assert packed.read_together(np.array([11])) is None
