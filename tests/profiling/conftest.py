from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState

from accel_trainer.core.allow_imports import ALLOW_VARIABLE


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs may name the models of tests/tiny_models.py, and are trained in this process."""
    monkeypatch.setenv(ALLOW_VARIABLE, "tiny_models")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
