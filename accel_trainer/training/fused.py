"""Optimizers that update all of a parameter in one kernel."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from accel_trainer.config import Job

# Those that torch has such kernels of, on a CPU too.
FUSED = ("SGD", "Adam", "AdamW")


def prefer_fused(job: Job, optimizer: Optimizer, device: torch.device) -> None:
    """On a CPU use torch's fused kernels, which are two to four times as fast, unless the job says otherwise. On a GPU
    torch chooses: several parameters in one kernel (foreach).

    The kernels take for granted that what is kept of a parameter lies in memory as the parameter does, and compute
    nonsense where not: what is loaded into the optimizer later, as of a job without channels_last, is laid out anew.
    """
    is_fused = device.type == "cpu" and job.optimizer in FUSED and _leaves_the_choice(job) and _are_dense(optimizer)
    own = [True if is_fused else group.get("fused") for group in optimizer.param_groups]

    def choose(optimizer: Optimizer) -> None:
        for group, fused in zip(optimizer.param_groups, own, strict=True):
            if "fused" in group:
                group["fused"] = fused

    def after_loading(optimizer: Optimizer) -> None:
        choose(optimizer)  # what is loaded may be of a training on another device
        _lay_out(optimizer)

    choose(optimizer)
    optimizer.register_load_state_dict_post_hook(after_loading)


def _leaves_the_choice(job: Job) -> bool:
    named = {name for name, value in job.optimizer_args.items() if value is not None}
    return named.isdisjoint({"fused", "foreach", "differentiable", "capturable"})


def _are_dense(optimizer: Optimizer) -> bool:
    return all(p.is_floating_point() and _is_dense(p) for group in optimizer.param_groups for p in group["params"])


def _is_dense(tensor: Tensor) -> bool:
    """Whether it fills its memory, in one of the orders that there are."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim(), torch.contiguous_format)
    return tensor.is_contiguous() or tensor.is_contiguous(memory_format=last)


def _lay_out(optimizer: Optimizer) -> None:
    """Give what is kept of each parameter its order in memory."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
