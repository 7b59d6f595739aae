"""Trainings and evaluations whose figures nobody looks at."""

from collections.abc import Iterator

import pytest
from helpers import NoPlotter


@pytest.fixture(scope="module", autouse=True)
def _no_plots_of_modules() -> Iterator[None]:
    """Nor do the runs that a module's tests share draw curves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accel_trainer.training.trainer.Plotter", NoPlotter)
        yield


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations draw no curves, which takes longer than to measure tiny models, unless the test is marked with
    `plots`."""
    if request.node.get_closest_marker("plots") is None:
        monkeypatch.setattr("accel_trainer.evaluation.run_plan.draw_condition_curves", lambda folder, chance: None)
