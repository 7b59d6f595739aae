import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
from PIL import Image

from accel_trainer.config import Job
from accel_trainer.data import native

one_core = pytest.fixture(autouse=True)(helpers.one_core)
MakeJob = Callable[..., Job]


@pytest.fixture
def make_job() -> MakeJob:
    def make(**given: Any) -> Job:
        return Job.model_validate({"architecture": "resnet18", **given})

    return make


WriteImage = Callable[..., Path]


@pytest.fixture
def write_image() -> WriteImage:
    """Writes an image of one brightness; folders are made as needed."""

    def write(path: Path, brightness: int = 0, size: tuple[int, int] = (6, 5)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((*size, 3), brightness, np.uint8)
        Image.fromarray(pixels).save(path, "JPEG" if path.suffix.lower().startswith(".jp") else "PNG")
        return path

    return write


SOURCES = sorted(Path(native.__file__).parent.glob("*.c"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel, compiled of the source as it is, with every warning an error."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("kernel") / "kernel.so"
    flags = ["-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, *map(str, SOURCES), "-o", str(path), "-lm"], check=True)
    return path
