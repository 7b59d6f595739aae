"""How a run resumes: of the same job bit for bit, of a changed one with what it may keep."""

import logging
from dataclasses import replace
from typing import assert_never

from accel_trainer.config.diff import Changes
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.runtime.environment import describe_change, has_batch_norm, has_dropout
from accel_trainer.training.state.checkpoint import TrainState
from accel_trainer.training.state.restore import (
    best_so_far,
    measures_the_same,
    restore_optimizer,
    reusable_averages,
)
from accel_trainer.training.state.starting_point import Fresh, FromState, FromWeights, StartingPoint

log = logging.getLogger(__name__)


def resume(loop: TrainingLoop, start: StartingPoint) -> None:
    """Bring a new loop to where the run was left. Weights that come without a state are in the model already."""
    match start:
        case Fresh():
            pass
        case FromState(state):
            if start.differences:
                _load_into_changed_job(loop, state, start.differences)
            else:
                loop.load_state_dict(state)
            _log_change_of_environment(loop, state)
        case FromWeights(_, epoch):
            if epoch:
                loop.progress.epoch = epoch
                loop.progress.global_step = epoch * loop.parts.sampling.steps_per_epoch
                loop.replay_schedule()
        case _:
            assert_never(start)
    loop.states.go_on_from(loop.progress)


def _load_into_changed_job(loop: TrainingLoop, state: TrainState, differences: Changes) -> None:
    """Resume at the end of an epoch of another job: with its weights and the new parameters.

    The state is saved again at once: from the next attempt on nothing shows that the job has changed.
    """
    loop.progress = replace(state.progress)
    loop.plain_model.load_state_dict(state.model)
    loop.load_scaler(state)
    keeps_optimizer = restore_optimizer(loop.job, differences, loop.optimizer, state.trainer.optimizer)
    averages = reusable_averages(state.trainer.averages, differences)
    loop.averages.load_state_dict(averages)
    if not measures_the_same(loop.job, differences):
        loop.progress.best = loop.progress.best_epoch = None
    loop.replay_schedule()
    loop.progress.best, loop.progress.best_epoch = best_so_far(loop.job, differences, loop.progress)
    loop.save_state()
    reset = [] if keeps_optimizer else ["what the optimizer keeps"]
    reset += [f"the {name} average" for name in loop.averages.state_dict() if name not in averages]
    reset += ["the best epoch"] if loop.progress.best is None and state.progress.best is not None else []
    if reset and loop.is_first:
        log.info("reset: %s", ", ".join(reset))


def _log_change_of_environment(loop: TrainingLoop, state: TrainState) -> None:
    model = loop.plain_model
    then = {"num_processes": state.num_processes, **state.trainer.world}
    line = describe_change(then, loop.world, has_batch_norm=has_batch_norm(model), has_dropout=has_dropout(model))
    if line is not None and loop.is_first and loop.progress.epoch < loop.job.num_epochs:
        log.info("%s", line)
