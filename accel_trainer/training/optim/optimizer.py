"""The optimizer of a job: any of torch by name, with fused kernels where they are faster."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.core.construct import construct, find_class, subclasses
from accel_trainer.core.errors import UserError
from accel_trainer.training.optim.argument_types import check_arguments
from accel_trainer.training.optim.parameter_groups import parameter_groups

_REFUSED = {
    "LBFGS": "it evaluates the loss several times in a step (a closure), and a step here has one forward pass",
    "SparseAdam": "it takes sparse gradients only, and these are dense; use Adam",
}
OPTIMIZERS = subclasses(torch.optim, Optimizer, without=frozenset(_REFUSED))


def make_optimizer(job: ResolvedJob, model: nn.Module) -> Optimizer:
    """The job's optimizer over the parameters of the model that require a gradient. Raises UserError."""
    kind = find_class("optimizer", OPTIMIZERS, job.optimizer, _REFUSED)
    if not job.decay_norm_and_bias and "weight_decay" not in inspect.signature(kind).parameters:
        raise UserError(f"decay_norm_and_bias: {job.optimizer} has no weight decay at all; remove decay_norm_and_bias")
    optimizer = construct_optimizer(job, parameter_groups(job, model))
    for group in optimizer.param_groups:
        group["lr"] *= lr_scale(group)
    return optimizer


def construct_optimizer(job: ResolvedJob, groups: list[dict[str, Any]]) -> Optimizer:
    """An optimizer as the job names it, over these parameter groups. Raises UserError."""
    find_class("optimizer", OPTIMIZERS, job.optimizer, _REFUSED)
    args = check_arguments("optimizer", OPTIMIZERS, job.optimizer, job.optimizer_args)
    optimizer: Optimizer = construct("optimizer", OPTIMIZERS, job.optimizer, args, groups)
    return optimizer


def optimizer_state_keys(job: ResolvedJob, optimizer: Optimizer) -> dict[int, set[str]]:
    """What the job's optimizer keeps of each parameter between two steps, by its names; parameters are numbered as in
    a state dict. Found by a step of another one, over tensors of as many dimensions."""
    groups = [
        {**group, "params": [torch.zeros([1] * p.dim(), requires_grad=True, device="cpu") for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    for parameter in (p for group in groups for p in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    stand_in = construct_optimizer(job, groups)
    stand_in.step()
    state = stand_in.state_dict()["state"]
    num_parameters = sum(len(group["params"]) for group in groups)
    return {number: set(state.get(number, {})) for number in range(num_parameters)}


def lr_scale(group: dict[str, Any]) -> float:
    """The fraction of the full learning rate that a parameter group has; 1 for the output layer."""
    scale: float = group.get("lr_scale", 1.0)
    return scale


def learning_rate(optimizer: Optimizer) -> float:
    """The full learning rate: that of the output layer, where layers have different rates."""
    group = max(optimizer.param_groups, key=lr_scale)
    return float(group["lr"]) / lr_scale(group)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the full learning rate; each parameter group gets it times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * lr_scale(group)


def rate_for_batch(rule: str, batch_size: int) -> float:
    """The learning rate of a rule in a job file: "batch_linear" is batch_size / 2^5, "batch_nonlinear"
    2^-7 sqrt(batch_size / 2^5). Raises ValueError for any other rule."""
    match rule:
        case "batch_linear":
            return batch_size / 2**5
        case "batch_nonlinear":
            return 2**-7 * math.sqrt(batch_size / 2**5)
        case _:
            raise ValueError(f"{rule!r} is no rule for a learning rate")


def with_rate_for_batch(job: Job) -> Job:
    """The same job with the learning rate of its rule as a number, where that follows from what is known."""
    if job.batch_size == "auto" or job.lr_rule in (None, "LRfinder"):
        return job
    return job.with_found({job.lr_rule: rate_for_batch(job.lr_rule, job.batch_size)})


# Those that torch has such kernels of, on a CPU too.
FUSED_OPTIMIZERS = ("SGD", "Adam", "AdamW")


def prefer_fused(job: ResolvedJob, optimizer: Optimizer, device: torch.device) -> None:
    """On a CPU use torch's fused kernels, which are two to four times as fast, unless the job says otherwise. On a GPU
    torch chooses: several parameters in one kernel (foreach).

    The kernels take for granted that what is kept of a parameter lies in memory as the parameter does, and compute
    nonsense where not: what is loaded into the optimizer later, as of a job without channels_last, is laid out anew.
    """
    is_fused = (
        device.type == "cpu" and job.optimizer in FUSED_OPTIMIZERS and _chooses_no_kernel(job) and _are_dense(optimizer)
    )
    own = [True if is_fused else group.get("fused") for group in optimizer.param_groups]

    def choose(groups: list[dict[str, Any]]) -> None:
        for group, fused in zip(groups, own, strict=False):
            if "fused" in group:
                group["fused"] = fused

    def before_loading(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """What is loaded may be of a training on another device. By this torch also knows where steps are counted: a
        kernel that needs the counts on the host would wait for each of them in every step, if they were not there."""
        state = {**state, "param_groups": [dict(group) for group in state["param_groups"]]}
        choose(state["param_groups"])
        return state

    choose(optimizer.param_groups)
    optimizer.register_load_state_dict_pre_hook(before_loading)
    optimizer.register_load_state_dict_post_hook(_match_memory_format)


def _chooses_no_kernel(job: ResolvedJob) -> bool:
    named = {name for name, value in job.optimizer_args.items() if value is not None}
    return named.isdisjoint({"fused", "foreach", "differentiable", "capturable"})


def _are_dense(optimizer: Optimizer) -> bool:
    return all(p.is_floating_point() and _is_dense(p) for group in optimizer.param_groups for p in group["params"])


def _is_dense(tensor: Tensor) -> bool:
    """Whether it fills its memory, in one of the orders that there are."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim(), torch.contiguous_format)
    return tensor.is_contiguous() or tensor.is_contiguous(memory_format=last)


def _match_memory_format(optimizer: Optimizer) -> None:
    """Store the state of each parameter in the memory format of the parameter."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
