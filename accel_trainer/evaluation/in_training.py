"""Degraded images measured while a run is trained, by the processes that train it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.run.folder import RunFolder

if TYPE_CHECKING:
    from accel_trainer.training.runtime.accelerator import Assembly


def measure_in_training(
    run: RunFolder,
    plan: EvaluationPlan,
    parts: "Assembly",
    on_progress: Callable[[int, int], None],
    is_stopped: Callable[[], bool],
) -> None:
    """A `training.degraded.Measure`: saved weights are measured by a model of their own, which goes afterwards."""
    from accel_trainer.evaluation.run_plan import EvaluationStopped, run_plan  # torch takes seconds
    from accel_trainer.training.runtime.ranks import Stopped

    models = parts.accelerator._models  # Accelerate keeps what it has prepared
    before = list(models)
    try:
        run_plan(RunFolder(run.path), plan, parts=parts, on_progress=on_progress, is_stopped=is_stopped)
    except EvaluationStopped as error:
        raise Stopped from error
    finally:
        models[:] = before
