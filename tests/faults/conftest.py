import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    # Known where this folder is named on the command line, as `make chaos` does.
    parser.addoption("--every-event", action="store_true", help="kill at every event of a run, not at one of each kind")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loaded before the C library, it makes a folder a disk that can go away."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("a disk that goes away is made by a library for LD_PRELOAD, which needs Linux and gcc")
    path = tmp_path_factory.mktemp("library") / "disk_away.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(path), str(HERE / "disk_away.c"), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"gcc cannot build the library: {built.stderr[:200]}")
    return path


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of 120 images of two classes, and a pack of it."""
    from accel_trainer.data.open import open_data_set
    from accel_trainer.data.pack.split_writer import PackSettings
    from accel_trainer.data.pack.writer import pack

    root = tmp_path_factory.mktemp("disk")
    for split, count in (("train", 96), ("val", 24)):
        for number in range(count):
            path = root / "set" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (10, 8 + number % 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    images = open_data_set("set", root, None, None)
    pack(images, "set", root / "set.pack", PackSettings(10, "raw"), 1, lambda done, total: None)
    return root
