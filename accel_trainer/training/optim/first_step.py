"""A first step by a job's optimizer, tried on parameters of one value: torch looks at some arguments only then."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.text import first_line
from accel_trainer.training.optim.optimizer import construct_optimizer

# What torch takes on a GPU alone.
GPU_ONLY = "capturable"


def check_first_step(job: ResolvedJob, parameters: Iterable[Tensor]) -> None:
    """Let the job's optimizer take a step on the CPU, over a parameter of each dtype and number of dimensions that they
    have. Raises UserError with each argument that torch refuses there, whatever else is wrong with the others; but for
    `capturable`, of which the device decides."""
    kinds = list({(parameter.dtype, parameter.dim()): parameter for parameter in parameters}.values())
    args = {name: value for name, value in job.optimizer_args.items() if name != GPU_ONLY}
    alone = {name: _failure(job, kinds, {name: value}) for name, value in args.items()}
    problems = [
        Problem(f"{job.optimizer} cannot take a step with it: {why}", key=f"optimizer_args.{name}", hint="remove it")
        for name, why in alone.items()
        if why is not None
    ]
    if not problems and (why := _failure(job, kinds, args)) is not None:
        problems.append(Problem(f"{job.optimizer} cannot take a step with these: {why}", key="optimizer_args"))
    if problems:
        raise UserError(*problems)


def refuse_gpu_arguments(job: Job, device: torch.device) -> None:
    """Raises UserError for an argument of the optimizer that the device of a training does not have."""
    if device.type == "cpu" and job.optimizer_args.get(GPU_ONLY) is True:
        raise UserError(
            f"{job.optimizer} takes it on a GPU only, and this training is on the CPU",
            key=f"optimizer_args.{GPU_ONLY}",
            hint="remove it",
        )


def _failure(job: ResolvedJob, kinds: Sequence[Tensor], args: Mapping[str, Any]) -> str | None:
    """What torch says of a step with these arguments; None where it takes one, or no such optimizer can be made."""
    groups = [{"params": [_like(parameter) for parameter in kinds]}]
    try:
        stand_in = construct_optimizer(job.model_copy(update={"optimizer_args": dict(args)}), groups)
    except UserError:  # whoever makes the job's own optimizer says so
        return None
    try:
        stand_in.step()
    except Exception as error:  # torch refuses in many ways
        return first_line(error).rstrip(".")
    return None


def _like(parameter: Tensor) -> Tensor:
    one = torch.zeros([1] * parameter.dim(), dtype=parameter.dtype, device="cpu", requires_grad=True)
    one.grad = torch.ones_like(one)
    return one
