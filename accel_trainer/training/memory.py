"""What helps a run that was out of memory."""

import logging
import math
from dataclasses import dataclass

from accelerate.utils.memory import clear_device_cache

from accel_trainer.config import Job
from accel_trainer.core.text import first_line
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.batch_size import largest, make_fits
from accel_trainer.training.build import build
from accel_trainer.training.checkpoint import StateStore
from accel_trainer.training.hardware import augments_on_device, make_accelerator
from accel_trainer.training.images import possible_batch_sizes

log = logging.getLogger(__name__)

BY_HAND = "use a smaller batch_size, or gradient_accumulation, which keeps the batch"


@dataclass(frozen=True)
class Advice:
    text: str
    fitting_batch_size: int | None = None


def advice(job: Job, run: RunFolder) -> Advice:
    """What to do about a lack of memory in a run, when all that it held is free again.

    What would fit is looked for where another attempt may come by itself: the size is "auto", or there are retries.
    This process finds it for its own share alone: it has left the others, which cannot meet it any more.
    """
    size = job.with_numbers(run.read_found()).batch_size
    if not isinstance(size, int):
        return Advice("use a smaller image_size or model")
    if job.batch_size != "auto" and not job.retries:
        return Advice(BY_HAND)
    try:
        fitting = fitting_batch_size(job.with_numbers({"auto": size}), run, size)
    except Exception as error:  # the run has its reason; this would only have been a help
        log.warning("what would fit into memory could not be found (%s)", first_line(error))
        return Advice(BY_HAND)
    if fitting is None:
        return Advice("no smaller batch_size would fit either; use a smaller image_size or model")
    return Advice(f"{fitting} would fit; {_how_to_use(fitting, job, size, StateStore(run))}", fitting)


def fitting_batch_size(job: Job, run: RunFolder, below: int) -> int | None:
    """The largest batch size below one that did not fit, on as many processes, that this process finds to fit."""
    clear_device_cache(garbage_collection=True)
    accelerator = make_accelerator(job, run)
    world_size = accelerator.num_processes
    job = job.on_paper(below)
    parts = build(job, world_size, augment_on_device=augments_on_device(job, accelerator.device))
    sizes = [size for size in possible_batch_sizes(job, parts.images, world_size) if size < below]
    return largest(sizes, make_fits(job, parts, accelerator))


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
