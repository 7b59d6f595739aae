from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.config import Job
from accel_trainer.runs import RunFolder

MakeJob = Callable[..., Job]


@pytest.fixture
def make_job() -> MakeJob:
    """A job on the digits, with some parameters changed."""

    def make(**given: Any) -> Job:
        few = {"architecture": "squeezenet1_1", "dataset": "digits", "image_size": 32, "trackers": []}
        return Job.model_validate({**few, **given})

    return make


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder
