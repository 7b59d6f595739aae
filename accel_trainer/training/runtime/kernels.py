"""Which kernels a run computes with, and how its images and weights lie in memory.

What is of GPUs was not run on one.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from accel_trainer.config import Job
from accel_trainer.core.child_environment import WORKSPACE, WORKSPACE_VARIABLE, environment_restored
from accel_trainer.core.errors import UserError
from accel_trainer.data.precision import float32_as

log = logging.getLogger(__name__)


@contextmanager
def chosen_kernels(job: Job, device: torch.device) -> Iterator[None]:
    """The kernels that a job asks for; afterwards torch's settings are as before.

    By default a GPU takes the same kernels in every attempt, of which each adds up in one order, where there is such a
    one (`training/determinism` names what has none); and float32 means float32, not TF32, which has 10 bits of its 23
    and which torch would allow in convolutions. `fast_kernels` has cuDNN try which kernels are the fastest, and allows
    those that add up in any order; `tf32` allows TF32 in convolutions and matrix products; `deterministic` has torch
    refuse what has no other kernel.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = job.fast_kernels, not job.fast_kernels
    prefers = device.type == "cuda" and not job.fast_kernels
    try:
        with (
            float32_as(tf32=job.tf32 and device.type == "cuda"),
            _one_order(refuses=job.deterministic) if job.deterministic or prefers else nullcontext(),
        ):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def _one_order(*, refuses: bool) -> Iterator[None]:
    """Kernels that add up in one order; what has none is refused, or taken as it is. Memory that torch would fill, so
    that whoever reads it before writing reads the same, is left as it comes: nobody here does."""
    is_on, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    with environment_restored():
        os.environ[WORKSPACE_VARIABLE] = WORKSPACE
        torch.use_deterministic_algorithms(True, warn_only=not refuses)
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(is_on, warn_only=warns)
            memory.fill_uninitialized_memory = fills


def reads_workspace_late() -> bool:
    """Whether this torch minds how cuBLAS's memory was set up after CUDA was used; older ones do not."""
    return hasattr(torch.backends.cuda, "cublas_workspace_size")


def refuse_late_choice(job: Job, device: torch.device, *, is_cuda_used: bool) -> None:
    """Say where products of matrices may come to other bits, as CUDA was used in this process before cuBLAS was told of
    one order. Raises UserError for a job that is to be deterministic. Called before `chosen_kernels`."""
    is_told = os.environ.get(WORKSPACE_VARIABLE) == WORKSPACE
    if device.type != "cuda" or not is_cuda_used or is_told or job.fast_kernels or reads_workspace_late():
        return
    message = f"CUDA was used in this process before, without {WORKSPACE_VARIABLE}={WORKSPACE}"
    hint = "set it before CUDA is used, or train by `accel-train train`"
    if job.deterministic:
        raise UserError(message, key="deterministic", hint=hint)
    log.warning("%s: products of matrices may come to other last bits; %s", message, hint)


def kernels_line(job: Job) -> str | None:
    """What a job gives up for speed on a GPU, for people; None where it is nothing."""
    given_up = [
        *(["TF32 in place of float32"] if job.tf32 else []),
        *(["the fastest kernels, which may come to other bits in another attempt"] if job.fast_kernels else []),
    ]
    return " and ".join(given_up) or None


def is_channels_last(job: Job, device: torch.device) -> bool:
    """Whether images and convolutions lie channels last: as the job says, or else on a CUDA GPU, for images, by the
    rules since 3."""
    if job.channels_last is not None:
        return job.channels_last
    return device.type == "cuda" and not job.video and job.rules >= 3


def in_memory_format(job: Job, inputs: Tensor) -> Tensor:
    """Images (n, 3, size, size) on the device, as the model is stored there; clips as they are."""
    if inputs.dim() == 4 and is_channels_last(job, inputs.device):
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


def store_weights(job: Job, model: nn.Module, device: torch.device) -> None:
    """Store the kernels of convolutions as `in_memory_format` stores images on that device.

    Module.to cannot, where a model has convolutions over time; and it leaves kernels of one pixel as they are, whose
    gradients then lie otherwise than they do: DistributedDataParallel warns of each. By the rules before 3 they stay.
    """
    if not is_channels_last(job, device):
        return
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if (memory_format := formats.get(parameter.dim())) is None:
            continue
        if job.rules < 3:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
        else:
            parameter.data = torch.empty_like(parameter, memory_format=memory_format).copy_(parameter.data)
