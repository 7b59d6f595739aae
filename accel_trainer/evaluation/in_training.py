"""Degraded images measured while a run is trained, by the processes that train it."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.run.folder import RunFolder

if TYPE_CHECKING:
    from accel_trainer.training.runtime.accelerator import Assembly

log = logging.getLogger(__name__)


def measure_in_training(
    run: RunFolder,
    plan: EvaluationPlan,
    parts: "Assembly",
    on_progress: Callable[[int, int], None],
    is_stopped: Callable[[], bool],
) -> bool:
    """A `training.degraded.Measure`: saved weights are measured by a model of their own, which goes afterwards. What is
    there of older weights is set aside; what somebody else measures just now is left to them."""
    from accel_trainer.evaluation.owned_folder import EvaluationInUse
    from accel_trainer.evaluation.run_plan import EvaluationStopped, run_plan  # torch takes seconds
    from accel_trainer.training.runtime.ranks import Stopped

    models = parts.accelerator._models  # Accelerate keeps what it has prepared
    before = list(models)
    try:
        run_plan(RunFolder(run.path), plan, parts=parts, replaces=True, on_progress=on_progress, is_stopped=is_stopped)
        return True
    except EvaluationInUse as error:
        log.warning("degraded images are not measured here: %s", error)
        return False
    except EvaluationStopped as error:
        raise Stopped from error
    finally:
        models[:] = before
