"""The largest batch size that fits, for "auto" and for a run that was out of memory."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.core.limits import available_memory
from accel_trainer.core.text import first_line
from accel_trainer.data.batch_plan import possible_batch_sizes
from accel_trainer.data.loader import Batch
from accel_trainer.data.views import Inputs
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_found
from accel_trainer.training.build import Components, build
from accel_trainer.training.failures import is_out_of_memory
from accel_trainer.training.meta_model import activation_bytes
from accel_trainer.training.runtime.accelerator import Assembly
from accel_trainer.training.runtime.kernels import in_memory_format
from accel_trainer.training.state.checkpoint import StateStore

FitsMemory = Callable[[int], bool]
# Of the memory that is available. The rest is for what is not measured: batches that are loaded ahead, what a layer
# needs while it is computed, the validation.
MEMORY_FRACTION = 0.5
# Of what a CUDA device has for this process. The rest is for batches that are loaded ahead, and for gaps.
DEVICE_FRACTION = 0.9


def largest_fitting(sizes: Sequence[int], fits: FitsMemory) -> int | None:
    """The last of ascending sizes before one that does not fit; None where the first does not."""
    found = None
    for size in sizes:
        if not fits(size):
            break
        found = size
    return found


def memory_check(job: ResolvedJob, parts: Components, accelerator: Accelerator) -> FitsMemory:
    """A function of a batch size: whether one process can train with it. It modifies the components.

    On a CUDA device it is tried, and what the trial took must leave room. Elsewhere running out of memory cannot be
    survived: it is calculated.

    The validation is no part of it: its forward passes are no larger than those of training, and keep nothing for a
    backward pass. What the nearest-neighbor test holds takes the place of that, whatever the batch.
    """
    parts_of_batch = job.num_views * accelerator.num_processes * job.gradient_accumulation
    if accelerator.device.type == "cuda":
        trial = MemoryTrial(job, parts, accelerator, DeviceMemory(accelerator.device))
        return lambda size: trial(size // parts_of_batch)
    available = available_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    footprint = estimate_footprint(job, parts)
    return lambda size: footprint.bytes_for(size // parts_of_batch) <= MEMORY_FRACTION * available


@dataclass(frozen=True)
class Footprint:
    """Bytes that training needs: whatever the batch, and for each image of a forward pass, with all its views."""

    fixed: int
    per_image: int

    def bytes_for(self, images: int) -> int:
        """Bytes for forward passes of so many images."""
        return self.fixed + images * self.per_image


def estimate_footprint(job: ResolvedJob, parts: Components) -> Footprint:
    """What a job's model needs, on the CPU: parameters, gradients, the optimizer's state and averages; and what the
    layers keep of an image for the backward pass, found on the meta device.

    Matrices of a contrastive loss, which grow with the square of the batch, are not in it. It modifies the components.
    """
    examples = 1 if job.video else job.views_per_image
    # Two images at least, for BatchNorm; the difference leaves weights out, which are kept whatever the batch.
    few, more = (activation_bytes(job, parts.model, images * examples) for images in (2, 4))
    weights = _bytes_of_weights(parts)
    return Footprint(
        fixed=weights + _bytes_of_averages(job, parts) + _bytes_of_step(parts), per_image=(more - few) // 2
    )


def bytes_beside_a_trial(job: Job, parts: Components, num_processes: int) -> int:
    """What training holds beside what a trial of one process does: the averages, and with several processes the buckets
    of DistributedDataParallel, which are its gradients and stay from step to step."""
    buckets = [p for p in parts.model.parameters() if p.requires_grad] if num_processes > 1 else []
    return _bytes_of_averages(job, parts) + _bytes(buckets)


def _bytes_of_averages(job: Job, parts: Components) -> int:
    return ((job.ema is not None) + (job.swa is not None)) * _bytes_of_weights(parts)


def _bytes_of_weights(parts: Components) -> int:
    return _bytes([*parts.model.parameters(), *parts.model.buffers()])


def _bytes_of_step(parts: Components) -> int:
    """Gradients, and what the optimizer remembers after a step."""
    optimizer = parts.optimizer
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    remembered = [value for state in optimizer.state.values() for value in state.values()]
    return _bytes(trained) + _bytes(remembered)


def _bytes(values: Sequence[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


@dataclass(frozen=True)
class DeviceMemory:
    """What a CUDA device has for this process: all that others do not use. Not run on a GPU."""

    device: torch.device

    def watch(self) -> None:
        """From now on the most that is in use at a time counts."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def has_room(self, beside: int) -> bool:
        """Whether the most that was in use since, with so many bytes beside it, leaves a tenth."""
        free, _ = torch.cuda.mem_get_info(self.device)
        available = free + torch.cuda.memory_reserved(self.device)
        return torch.cuda.max_memory_allocated(self.device) + beside <= DEVICE_FRACTION * available


class MemoryTrial:
    """Tries two optimizer steps on random images on the device. Not run on a GPU.

    memory: of the device, which is asked whether there is room for what a trial leaves out, and a reserve.

    Each rank tries alone, without the others' gradients: one that runs out of memory would leave them waiting. So a
    contrastive loss compares the rank's own views only.
    """

    def __init__(
        self, job: ResolvedJob, parts: Components, accelerator: Accelerator, memory: DeviceMemory | None = None
    ) -> None:
        self._job, self._accelerator, self._memory = job, accelerator, memory
        self._beside = bytes_beside_a_trial(job, parts, accelerator.num_processes)
        self._model: nn.Module = parts.model.to(accelerator.device).train()
        self._optimizer = parts.optimizer
        self._objective = parts.objective.to(accelerator.device)
        self._num_classes = len(parts.images.classes)

    def __call__(self, num_images: int) -> bool:
        """Whether forward passes of so many images, with all their views, fit."""
        try:
            if self._memory is not None:
                self._memory.watch()
            for _ in range(2):  # the second has the optimizer's state beside it
                self._step(num_images)
            return self._memory is None or self._memory.has_room(self._beside)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self._optimizer.zero_grad()
            clear_device_cache(garbage_collection=True)

    def _step(self, num_images: int) -> None:
        for _ in range(min(2, self._job.gradient_accumulation)):  # the second has gradients beside it
            batch = self._random_batch(num_images)
            with self._accelerator.autocast():
                output = self._model(in_memory_format(self._job, batch.inputs.on(self._accelerator.device)))
                loss = self._objective.compute(output, batch, is_shared=False).loss
            loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _random_batch(self, num_images: int) -> Batch:
        job = self._job
        views, frames = (1, (job.views_per_image,)) if job.video else (job.views_per_image, ())
        labels = torch.randint(self._num_classes, (num_images,)).repeat_interleave(views)
        images = torch.rand(len(labels), *frames, 3, job.image_size, job.image_size)
        return Batch(Inputs(images), labels, labels, step=0)


log = logging.getLogger(__name__)
SMALLER_BATCH_HINT = "use a smaller batch_size, or gradient_accumulation, which keeps the batch"


@dataclass(frozen=True)
class Advice:
    """What to do about a lack of memory, and a batch size that fits, if one was looked for and found."""

    text: str
    fitting_batch_size: int | None = None


def out_of_memory_advice(job: Job, run: RunFolder, parts: Assembly) -> Advice:
    """What to do about a lack of memory in a run, when all that it held is free again.

    What would fit is looked for where another attempt may come by itself: the size is "auto", or there are retries.
    This process finds it for its own part alone: it has left the others, which cannot be asked any more.
    """
    size = job.with_found(read_found(run)).batch_size
    if not isinstance(size, int):
        return Advice("use a smaller image_size or model")
    if job.batch_size != "auto" and not job.retries:
        return Advice(SMALLER_BATCH_HINT)
    try:
        fitting = fitting_batch_size(job.with_found({"auto": size}), size, parts)
    except Exception as error:  # the run has its reason; this would only have been a help
        log.warning("what would fit into memory could not be found (%s)", first_line(error))
        return Advice(SMALLER_BATCH_HINT)
    if fitting is None:
        return Advice("no smaller batch_size would fit either; use a smaller image_size or model")
    return Advice(f"{fitting} would fit; {_how_to_use(fitting, job, size, StateStore(run))}", fitting)


def fitting_batch_size(job: Job, below: int, parts: Assembly) -> int | None:
    """The largest batch size below one that did not fit, on as many processes, that this process finds to fit.

    parts: of the run that was out of memory, released: no other process answers there any more.
    """
    clear_device_cache(garbage_collection=True)
    world_size = parts.accelerator.num_processes
    resolved = job.with_placeholders(below)
    components = build(resolved, world_size, augment_on_device=parts.augment_on_device)
    sizes = [size for size in possible_batch_sizes(job, components.images, world_size) if size < below]
    return largest_fitting(sizes, memory_check(resolved, components, parts.accelerator))


def _how_to_use(fitting: int, job: Job, size: int, states: StateStore) -> str:
    if job.batch_size != "auto":
        accumulation = job.gradient_accumulation * math.ceil(size / fitting)
        # Views of different micro-batches are not compared with each other.
        if size % (accumulation * job.num_views) or job.is_contrastive:
            return f"use batch_size {fitting}"
        return f"gradient_accumulation {accumulation} keeps the batch of {size}"
    if states.newest_step is None:
        return "the next attempt takes no more"
    return f"but the run has begun with {size}: free memory, or start over with batch_size {fitting} (checkpoint -1)"
