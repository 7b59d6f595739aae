from collections.abc import Callable
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from accel_trainer.config import Job
from accel_trainer.data.dataset import Splits
from accel_trainer.data.open import open_images

Open = Callable[..., Splits]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps what it converts in a folder of the test, and never asks the hub."""
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def open_hf(offline: None, make_job: Callable[..., Job]) -> Open:
    return lambda path, **columns: open_images(make_job(dataset=f"hf:{path}", **columns))
