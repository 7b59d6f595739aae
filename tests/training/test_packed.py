"""Training on a pack."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loops import assert_same, outcome, train
from PIL import Image

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.training.check import JobChecker
from accel_trainer.training.loop import TrainingLoop

MakeLoop = Callable[..., TrainingLoop]
# Every random thing draws from what an image is and where it stands.
RESTLESS = {
    "architecture": "squeezenet1_1",
    "image_size": 32,
    "class_subset": None,
    "num_epochs": 2,
    "batch_size": 16,
    "transform_type": "contrastive-trivialaugment",
    "Noise": {"noise_types": ["gaussian", "fourier"], "ssnrs": [0.5], "probs": 0.5},
    "cutmix": True,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a data set of two classes, two of whose images are corrupt, and a pack of it."""
    for split in ("train", "val"):
        for number in range(40):
            path = tmp_path / "set" / split / "ab"[number // 20] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (40, 36 + number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        path.write_bytes(b"broken")
    files = open_data_set("set", tmp_path, None, None)
    pack(files, "set", tmp_path / "set.pack", PackSettings(40, "raw"), 2, lambda done, total: None)
    return tmp_path


def test_a_pack_of_small_images_trains_bit_for_bit_as_they_do(root: Path, make_loop: MakeLoop) -> None:
    """Corrupt ones included."""
    from_files, from_pack = (
        train(make_loop(root / f"run of {name}", **RESTLESS, dataset=name, data_root=str(root)))
        for name in ("set", "set.pack")
    )
    assert_same(outcome(from_files), outcome(from_pack))
    for loop in (from_files, from_pack):
        assert [len(read.corrupt) for read in (loop.parts.train_reader, loop.parts.val.reader)] == [1, 1]


def test_a_job_on_half_a_pack_is_refused_when_it_is_checked(root: Path, make_job: Callable[..., Job]) -> None:
    (root / "set.pack/val.index").write_bytes(b"")
    with pytest.raises(UserError, match=r"^dataset: .*val\.index is damaged; delete the pack and pack again$"):
        JobChecker()(make_job(dataset="set.pack", data_root=str(root)), 1)
