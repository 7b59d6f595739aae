"""What a process trains on: its Accelerator, kernels, and what of a job depends on the device."""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import launched_processes
from accel_trainer.data.loader import default_num_threads
from accel_trainer.run.folder import RunFolder

log = logging.getLogger(__name__)
# Of glibc's mallopt (malloc.h). What is larger than the first always comes from the system, and goes back to it: 32 MB
# is where glibc, which raises it by itself, ends. The second: how much that is free at its end the heap keeps.
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 2**25
_M_TRIM_THRESHOLD, _TRIM_THRESHOLD = -1, 2**30


def make_accelerator(job: Job, run: RunFolder) -> Accelerator:
    """The Accelerator for a job. Raises UserError for a precision that the device has not."""
    # Made first, to know the device; Accelerator reads this variable itself, and PartialState does not.
    device = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).device
    accelerator = Accelerator(
        mixed_precision=_precision(job, device),
        gradient_accumulation_steps=job.gradient_accumulation,
        log_with=job.trackers or None,
        project_dir=str(run.path),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    _choose_kernels()
    if device.type == "cpu":
        keep_freed_memory()
    launched = launched_processes()
    if accelerator.num_processes != launched:
        # Each would train a model of its own, in the same folder.
        raise RuntimeError(f"{launched} processes were launched, but Accelerate joins {accelerator.num_processes}")
    return accelerator


def _choose_kernels() -> None:
    """float32 means float32 on a GPU too: TF32, which torch allows in convolutions, has 10 bits of its 23, and what
    augments images there promises more. And cuDNN does not choose by trying which is the fastest: another choice in
    another attempt would be other bits. Not run on a GPU."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def keep_freed_memory() -> None:
    """Memory that a step has freed stays with the process, for the next step needs it again: to get it back from the
    system, page by page, takes a tenth of the time of a step on a CPU.

    Where the C library is glibc, and nobody has set it otherwise in the environment.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)


def _precision(job: Job, device: torch.device) -> str:
    """'no', 'bf16' or 'fp16'. What is done on a GPU was not run on one."""
    if job.mixed_precision == "fp16" and device.type == "cpu":
        raise UserError("mixed_precision: fp16 does not work on a CPU; use 'bf16' or 'no'")
    if job.mixed_precision is not None:
        return job.mixed_precision
    if not job.amp:
        return "no"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    log.info("amp: full precision on this device (%s)", device.type)
    return "no"


def augments_on_device(job: Job, device: torch.device) -> bool:
    """Whether effects on images are computed there, or by the loader's threads. Not run on a GPU."""
    return job.augment_on == "device" if job.augment_on is not None else device.type == "cuda"


def loader_threads(job: Job) -> int:
    """Threads that load images, in each process."""
    if job.num_workers is not None:
        return job.num_workers
    return default_num_threads(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Only kernels that give the same bits every time, where the job asks for it."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if wanted:
            torch.use_deterministic_algorithms(False)


def in_memory_format(job: Job, inputs: Tensor) -> Tensor:
    """Images in the memory format that the job asks for."""
    if job.channels_last and inputs.dim() == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs
