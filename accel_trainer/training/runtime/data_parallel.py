"""Several processes train one model: how their gradients are summed, and in the same order in every attempt."""

from collections.abc import Callable
from copy import deepcopy

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.training.runtime.module_state import modules_with_extra_state

# What a model's class says that leaves some parameters out of some steps, as stochastic depth may.
LEAVES_OUT = "find_unused_parameters"
# Of two numbers the sum is the same in any order.
MOST_WITHOUT_ORDER = 2


def prepare(
    accelerator: Accelerator, model: nn.Module, optimizer: Optimizer, *, has_unused: bool, moves_buffers: bool
) -> tuple[nn.Module, AcceleratedOptimizer]:
    """The model and its optimizer for training on all processes; of a single one the model itself.

    has_unused: parameters may have no gradient in a step, and are left alone then, as they are in one process.
    moves_buffers: rank 0's buffers are everybody's in the first forward pass of each step. Without it each rank has its
    own statistics of BatchNorm, which no training step reads, and rank 0's are those that are evaluated and saved.
    """
    accelerator.ddp_handler = DistributedDataParallelKwargs(
        gradient_as_bucket_view=True, find_unused_parameters=has_unused
    )
    moves = moves_model(accelerator)
    model, prepared = accelerator.prepare(
        model, optimizer, device_placement=None if moves is None else [moves, accelerator.device_placement]
    )
    if isinstance(model, DistributedDataParallel):
        # Set here: as an argument it has another name, and another meaning, in every other version of torch.
        model.broadcast_buffers = moves_buffers
    return model, prepared


def moves_model(accelerator: Accelerator) -> bool | None:
    """Whether Accelerate is to move a model to its device; None: it knows itself. It would import sharded tensors to
    know it, and a single process has none."""
    return accelerator.device_placement if accelerator.distributed_type == DistributedType.NO else None


def settle_order(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Have gradients summed in this attempt's first step in the order of all later ones. All ranks call it, before
    their first step.

    DistributedDataParallel puts gradients together anew, in the order in which they came, after its first backward pass
    (`Reducer._rebuild_buckets`), and in which order the numbers of three and more processes are summed depends on their
    place: a step after a resume would have other bits than the same step without. So one pass is thrown away: a forward
    and a backward pass, after which buffers and what modules keep are as before. loss: computes it with the model; the
    seed of the model is to be set after this. Nothing is done where no order is open: for less than three processes,
    and where unused parameters are looked for, for then there is no second order.

    Not run on GPUs; there NCCL sums, by place as well.
    """
    if not _is_open(model):
        return
    parts = [model.get_submodule(name) for name in modules_with_extra_state(model)]
    extra = [deepcopy(part.get_extra_state()) for part in parts]
    buffers = [buffer.clone() for buffer in model.buffers()]
    loss().backward()
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    for part, state in zip(parts, extra, strict=True):
        part.set_extra_state(state)


def refuse_left_out(model: nn.Module, architecture: str) -> None:
    """After the backward pass of a step: raises UserError where parameters had no part in it that are waited for.

    DistributedDataParallel leaves gradients as each rank has them then, and says so at the next step only, when the
    optimizer has taken them, and a state may be saved.
    """
    if not isinstance(model, DistributedDataParallel):
        return
    try:
        model._check_reducer_finalized()
    except RuntimeError as error:
        left_out = [name for name, p in model.module.named_parameters() if p.requires_grad and p.grad is None]
        what = listed(left_out, 3) if left_out else "some parameters"
        hint = f"say `{LEAVES_OUT} = True` in the model's class, or multiply by 0 what a layer adds"
        raise UserError(f"{architecture} has left {what} out of a step", key="architecture", hint=hint) from error


def _is_open(model: nn.Module) -> bool:
    return (
        isinstance(model, DistributedDataParallel)
        and not model.find_unused_parameters
        and dist.get_world_size(model.process_group) > MOST_WITHOUT_ORDER
    )
