"""The largest batch that fits into memory."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from accel_trainer.config import Job
from accel_trainer.data.loader import Batch
from accel_trainer.data.views import Inputs
from accel_trainer.training.build import Parts
from accel_trainer.training.images import in_memory_format
from accel_trainer.training.paper import activation_bytes

Fits = Callable[[int], bool]

# Of the memory that is available. The rest is for what is not measured: batches that are loaded ahead, what a layer
# needs while it is computed, the validation.
SHARE_OF_MEMORY = 0.5
# What Accelerate does not look for. Not seen on a GPU.
NO_MEMORY = ("out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a lack of memory."""
    if error is None:
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError):
        told = str(error)
        if should_reduce_batch_size(error) or any(words in told for words in NO_MEMORY):
            return True
    return is_out_of_memory(error.__cause__)


def largest(sizes: Sequence[int], fits: Fits) -> int | None:
    """The last of ascending sizes before one that does not fit; None where the first does not."""
    found = None
    for size in sizes:
        if not fits(size):
            break
        found = size
    return found


def make_fits(job: Job, parts: Parts, accelerator: Accelerator) -> Fits:
    """What tells whether one process can train with batches of a size. It spoils the parts.

    On a CUDA device it is tried. Elsewhere running out of memory cannot be survived: it is calculated.
    """
    parts_of_batch = job.num_views * accelerator.num_processes * job.gradient_accumulation
    if accelerator.device.type == "cuda":
        trial = Trial(job, parts, accelerator)
        return lambda size: trial(size // parts_of_batch)
    available = psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    footprint = measure(job, parts)
    return lambda size: footprint.of(size // parts_of_batch) <= SHARE_OF_MEMORY * available


@dataclass(frozen=True)
class Footprint:
    """Bytes that training needs: whatever the batch, and for each image of a forward pass, with all its views."""

    fixed: int
    per_image: int

    def of(self, images: int) -> int:
        return self.fixed + images * self.per_image


def measure(job: Job, parts: Parts) -> Footprint:
    """What a job's model needs, on the CPU: parameters, gradients, the optimizer's state and averages; and what the
    layers keep of an image for the backward pass, found on the meta device.

    Matrices of a contrastive loss, which grow with the square of the batch, are not in it. The parts are spoilt.
    """
    examples = 1 if job.video else job.views_per_image
    # Two images at least, for BatchNorm; the difference leaves weights out, which are kept whatever the batch.
    few, more = (activation_bytes(job, parts.model, images * examples) for images in (2, 4))
    copies = 1 + (job.ema is not None) + (job.swa is not None)
    weights = _bytes([*parts.model.parameters(), *parts.model.buffers()])
    return Footprint(fixed=copies * weights + _bytes_of_step(parts), per_image=(more - few) // 2)


def _bytes_of_step(parts: Parts) -> int:
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


class Trial:
    """Tries two optimizer steps on random images on the device. Not run on a GPU.

    Each rank tries alone, without the others' gradients: one that runs out of memory would leave them waiting. So a
    contrastive loss compares the rank's own views only.
    """

    def __init__(self, job: Job, parts: Parts, accelerator: Accelerator) -> None:
        self._job, self._accelerator = job, accelerator
        self._model: nn.Module = parts.model.to(accelerator.device).train()
        self._optimizer = parts.optimizer
        self._objective = parts.objective.to(accelerator.device)
        self._num_classes = len(parts.images.classes)

    def __call__(self, num_images: int) -> bool:
        """Whether forward passes of so many images, with all their views, fit."""
        try:
            for _ in range(2):  # the second has the optimizer's state beside it
                self._step(num_images)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self._optimizer.zero_grad()
            clear_device_cache(garbage_collection=True)
        return True

    def _step(self, num_images: int) -> None:
        for _ in range(min(2, self._job.gradient_accumulation)):  # the second has gradients beside it
            batch = self._random_batch(num_images)
            with self._accelerator.autocast():
                output = self._model(in_memory_format(self._job, batch.inputs.on(self._accelerator.device)))
                loss = self._objective.judge(output, batch, is_shared=False).share
            loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _random_batch(self, num_images: int) -> Batch:
        job = self._job
        views, frames = (1, (job.views_per_image,)) if job.video else (job.views_per_image, ())
        labels = torch.randint(self._num_classes, (num_images,)).repeat_interleave(views)
        images = torch.rand(len(labels), *frames, 3, job.image_size, job.image_size)
        return Batch(Inputs(images), labels, labels, step=0)
