from collections.abc import Callable
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
from PIL import Image

from accel_trainer.config import Job

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
