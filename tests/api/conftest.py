"""A trained run for all, and what trainers see."""

from collections.abc import Iterator

import helpers
import pytest
from tiny_runs import Seen, finish, record_evaluation

from accel_trainer import Run
from accel_trainer.core.launched import CORES_VARIABLE, TOKEN_VARIABLE
from accel_trainer.training.validation import Evaluator

# The number of cores changes the last bits of sums: it is the same for a training and for what is compared with it.
one_core = pytest.fixture(autouse=True)(helpers.one_core)


@pytest.fixture(scope="module", autouse=True)
def few_cores() -> Iterator[None]:
    """Tensors as small as a test's need no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CORES_VARIABLE, "1")
        patch.setenv(TOKEN_VARIABLE, "of a launch elsewhere")  # without one nobody believes it
        yield


@pytest.fixture(autouse=True)
def _no_plots(no_plots: None) -> None: ...


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is a GPU."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs, with all kinds of weights. Only to be read."""
    folder = tmp_path_factory.mktemp("trained") / "my-job"
    return finish(folder, num_epochs=2, save_interval=1, ema=0.9, swa={"start": 1})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What trainers evaluate, from now on."""
    found = Seen()
    monkeypatch.setattr(Evaluator, "forward", record_evaluation(found))
    return found
