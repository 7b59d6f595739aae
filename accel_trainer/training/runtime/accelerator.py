"""What a process computes with: its Accelerator, kernels and loader, from the first step of a run to its last.

`assembly` sets what is global to the process and restores it, so that one process can train again, in another precision
or on another device. What stays after it, because it cannot be undone or does not matter: how the C library keeps freed
memory (`keep_freed_memory`), torch's pools of threads and its context on a GPU, and modules that were imported.
"""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env

from accel_trainer.config import Job
from accel_trainer.core.allow_imports import current_folder_searched
from accel_trainer.core.child_environment import launched_processes, without_leftovers
from accel_trainer.core.errors import UserError
from accel_trainer.core.launched import PROCESSES_VARIABLE
from accel_trainer.data.loader import Loader, default_num_threads
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.runtime.gpu import refuse_missing_gpu
from accel_trainer.training.runtime.kernels import chosen_kernels, refuse_late_choice
from accel_trainer.training.runtime.wait_policy import waiting_by_load

log = logging.getLogger(__name__)
# Of glibc's mallopt (malloc.h). What is larger than the first always comes from the system, and goes back to it: 32 MB
# is where glibc, which raises it by itself, ends. The second: how much that is free at its end the heap keeps.
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 2**25
_M_TRIM_THRESHOLD, _TRIM_THRESHOLD = -1, 2**30


@dataclass(frozen=True)
class Assembly:
    """What every run, of whatever kind, computes with. augment_on_device: whether images are augmented there, or by
    the loader's threads; joins_group: whether the process group is the caller's."""

    accelerator: Accelerator
    loader: Loader
    augment_on_device: bool
    joins_group: bool

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes what there is to write."""
        return bool(self.accelerator.is_main_process)

    def release(self) -> None:
        """End the process group and the loader's threads, and let go of what was prepared for the device. The
        accelerator still knows its device, and how many processes there were."""
        self.loader.close()
        if not self.joins_group:
            self.accelerator.end_training()
        self.accelerator.free_memory()


@contextmanager
def assembly(job: Job, run: RunFolder, *, cpu: bool = False) -> Iterator[Assembly]:
    """All that a job computes with in this process; afterwards the process is as it was before.

    What `core/child_environment` sets aside counts for nothing: of a process that nothing has launched, neither do
    ranks and addresses in its environment.

    cpu: leave a GPU alone, as the launch's variable ACCELERATE_USE_CPU does. Raises UserError for a precision that the
    device does not have; MachineFailure where a GPU is missing that the process was launched for.
    """
    with ExitStack() as resources:
        joins_group = dist.is_available() and dist.is_initialized()
        resources.enter_context(without_leftovers(joins_group=joins_group))
        resources.enter_context(current_folder_searched())
        resources.enter_context(_fresh_accelerate_state())
        is_cuda_used = torch.cuda.is_initialized()
        accelerator = make_accelerator(job, run, cpu=cpu)
        refuse_late_choice(job, accelerator.device, is_cuda_used=is_cuda_used)
        resources.enter_context(chosen_kernels(job, accelerator.device))
        resources.enter_context(waiting_by_load())
        resources.enter_context(_generators_restored(accelerator.device))
        on_device = augments_on_device(job, accelerator.device)
        parts = Assembly(accelerator, Loader(loader_threads(job)), on_device, joins_group)
        resources.callback(parts.release)
        yield parts


@contextmanager
def _fresh_accelerate_state() -> Iterator[None]:
    """Accelerate keeps device, precision and processes in the classes themselves: here from nothing, and then again as
    the caller had it. A process group that the caller has made is joined, and left."""
    before = [(kind, dict(kind._shared_state)) for kind in (AcceleratorState, GradientState, PartialState)]
    for kind, _ in before:
        kind._shared_state.clear()
    try:
        yield
    finally:
        for kind, state in before:
            kind._shared_state.clear()
            kind._shared_state.update(state)


@contextmanager
def _generators_restored(device: torch.device) -> Iterator[None]:
    """A run seeds torch's global generators in every step."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def make_accelerator(job: Job, run: RunFolder, *, cpu: bool = False) -> Accelerator:
    """The Accelerator for a job, for `assembly`. Raises UserError for a precision that the device does not have, and
    MachineFailure where the process was launched for a GPU that torch does not see."""
    # Made first, to know the device; Accelerator reads this variable itself, and PartialState does not.
    cpu = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    if not cpu:
        refuse_missing_gpu()
    device = PartialState(cpu=cpu).device
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=_precision(job, device),
        # Not as a number: a variable goes before that.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=job.gradient_accumulation),
        log_with=job.trackers or None,
        project_dir=str(run.path),
    )
    if device.type == "cpu":
        keep_freed_memory()
    joins_group = dist.is_available() and dist.is_initialized() and PROCESSES_VARIABLE not in os.environ
    launched = dist.get_world_size() if joins_group else launched_processes()
    if accelerator.num_processes != launched:
        # Each would train a model of its own, in the same folder.
        raise RuntimeError(f"{launched} processes were launched, but Accelerate joins {accelerator.num_processes}")
    return accelerator


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
