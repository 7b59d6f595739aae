"""Jobs that train in a moment, for tests whose claim is of what is around the training."""

import os

import pytest
from helpers import REPOSITORY

from accel_trainer.core.allow_imports import ALLOW_VARIABLE


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of tests/tiny_models.py are a package that the user allows."""
    monkeypatch.setenv(ALLOW_VARIABLE, "tiny_models")
    known = [str(REPOSITORY / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, known)))
