"""What is loaded has the same bits with the compiled kernel and without it, and with any number of threads."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from accel_trainer.config import Job
from accel_trainer.data.batch_plan import TrainBatchPlanner
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.loader import ImageReader, Loader
from accel_trainer.data.native import library as native_library
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.data.pipeline import training_views

OCCLUSION = {"form": ["barVert04", "natural"], "probability": 0.8, "visibility": "all"}
JOBS: dict[str, dict[str, Any]] = {
    "crops": {"image_size": 33},
    "the center": {"transform_type": "none"},
    "erased": {"randomerase": "random"},
    "contrastive": {"transform_type": "contrastive", "num_views": 2},
    "clips": {"video": True, "num_views": 2, "Blur": {"sigmas": [2, 0]}},
    "occluders": {"Occlusion": OCCLUSION},
    "occluders and erased": {"Occlusion": OCCLUSION, "randomerase": [0.1, 2, -1], "mixup": True},
    "occluders of two views": {"Occlusion": {**OCCLUSION, "views": [1], "random_resize": True}, "num_views": 2},
    "pink occluders": {"Occlusion": {**OCCLUSION, "color": ["pink_noise", [9, 9, 9]]}},
    "RandAugment": {"transform_type": "default-randaugment"},
    "RandAugment and occluders": {"transform_type": "default-randaugment", "Occlusion": OCCLUSION},
    "RandAugment, erased": {"transform_type": "default-randaugment", "randomerase": 0, "batch_dependence": True},
    "TrivialAugment": {"transform_type": "none-trivialaugment", "Occlusion": OCCLUSION, "rules": 1},
    "AugMix": {"transform_type": "default-augmix"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw pack of images of several sizes, one of them corrupt, and occluders."""
    folder = tmp_path_factory.mktemp("bits")
    for number in range(24):
        for split in ("train", "val"):
            (place := folder / "set" / split / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            shape = (40 + number, 70 - 2 * number, 3)
            pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{number:02}.png")
    (folder / "set" / "train" / "a" / "04.png").write_bytes(b"\x89PNG, but not really")
    images = open_data_set(str(folder / "set"), folder, None, None)
    pack(images, "set", folder / "set.pack", PackSettings(36, "raw"), 1, lambda *_: None)
    make_occluders(folder / "occluders", ["barVert04", "natural"], [40, 80], number=3, size=40, report=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def compiled(library: Path) -> Kernel:
    return Kernel(library)


def digest(job: Job, images: ImageDataset, threads: int, *, on_device: bool) -> str:
    """Of the batches of an epoch."""
    read = ImageReader(images, training_views(job, None, on_device=on_device), replace_corrupt=True)
    planner = TrainBatchPlanner(len(images.labels), 10 * job.num_views, 1, 1, job.seed, job.num_views)
    found = hashlib.blake2b()
    with Loader(threads) as loader:
        for batch in loader.batches(read, planner.micro_batches(1, 0)):
            found.update(batch.inputs.on("cpu").contiguous().numpy().tobytes() + repr(sorted(batch.corrupt)).encode())
    return found.hexdigest()


@pytest.mark.parametrize("name", JOBS)
def test_bits_depend_neither_on_the_kernel_nor_on_threads(
    folder: Path, compiled: Kernel, monkeypatch: pytest.MonkeyPatch, name: str, make_job: Callable[..., Job]
) -> None:
    given = {"image_size": 24, "seed": 3, **JOBS[name]}
    if "Occlusion" in given:
        given["Occlusion"] = {**given["Occlusion"], "occluder_dir": str(folder / "occluders")}
    job = make_job(**given)
    images = open_data_set(str(folder / "set.pack"), folder, None, None).train
    for on_device in (False, True):
        monkeypatch.setattr(native_library, "_loaded", lambda: (None, "left out"))
        expected = digest(job, images, 0, on_device=on_device)
        for may_use_vectors in (True, False):
            compiled.may_use_vectors = may_use_vectors
            monkeypatch.setattr(native_library, "_loaded", lambda: (compiled, native_library.COMPILED))
            assert digest(job, images, 0 if may_use_vectors else 3, on_device=on_device) == expected
