"""What a training step reaches of a model, found on the meta device: which parameters, and which buffers."""

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from accel_trainer.config import Job
from accel_trainer.training.meta_model import MetaPass, meta_pass
from accel_trainer.training.objectives.base import Objective
from accel_trainer.training.runtime.data_parallel import LEAVES_OUT
from accel_trainer.zoo import registry, timm_models

# Of a model that draws: of four layers, each left out in a tenth of the steps, all are used in all of these once in 30.
MORE_PASSES = 8


@dataclass(frozen=True)
class StepReach:
    """has_unused: whether a step may leave parameters that are trained without a gradient; moves_buffers: whether a
    forward pass may change buffers that the next one depends on. BatchNorm's statistics are no such buffers: in
    training it uses those of the batch."""

    has_unused: bool
    moves_buffers: bool


def reach_of_step(job: Job, model: nn.Module, objective: Objective, num_processes: int) -> StepReach:
    """Look at a forward and a backward pass of two examples, unless there is a single process, which asks for none of
    it. What users have written may move buffers in another step that it does not move in this one; and leave layers out
    in some steps only, at random: then more passes are looked at. What they do not show, its class says itself."""
    if num_processes == 1:
        return StepReach(has_unused=False, moves_buffers=False)
    is_users = registry.is_others(job.architecture) and not job.architecture.startswith(timm_models.PREFIX)
    done = meta_pass(model, job, 2)
    has_unused = bool(getattr(model, LEAVES_OUT, False)) or _has_unused(done, objective)
    if done.draws and not has_unused:
        others = (meta_pass(model, job, 2, seed=seed) for seed in range(MORE_PASSES))
        has_unused = any(_has_unused(other, objective) for other in others)
    return StepReach(has_unused=has_unused, moves_buffers=is_users or bool(_moved(model, done)))


def _has_unused(done: MetaPass, objective: Objective) -> bool:
    return any(gradient is None for gradient in done.gradients(objective.trained(done.output)).values())


def _moved(model: nn.Module, done: MetaPass) -> list[str]:
    """Buffers, but for BatchNorm's, that the pass has changed, in place or by putting another tensor there."""
    statistics = {
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for buffer, _ in module.named_buffers(recurse=False)
    }
    names = [name for name, _ in model.named_buffers() if name not in statistics]
    return [n for n in names if done.after[n] is not done.given[n] or done.given[n]._version > 0]
