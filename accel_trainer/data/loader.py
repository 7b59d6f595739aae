"""Batches of pixels, loaded by threads of the training process.

Decoding and resizing release the interpreter's lock, so threads load as fast as worker processes would,
without copying batches between processes and without anything to leave behind.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.sampling import BatchPlan
from accel_trainer.data.source import Source
from accel_trainer.data.transforms import Numbers, Transform
from accel_trainer.errors import UserError
from accel_trainer.processes import usable_cores

log = logging.getLogger(__name__)

# Batches ready or being loaded beyond one for each thread.
READY_AHEAD = 2
MAX_THREADS = 8


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch.

    images: uint8 (n, 3, height, width); labels: int64 (n,); global_labels: those of the whole optimizer step,
    on all processes; step: within the epoch, from 0.
    """

    images: Tensor
    labels: Tensor
    global_labels: Tensor
    step: int


class ImageReader:
    """Loads the images of a batch plan; corrupt ones are named once, counted, and skipped.

    In training a corrupt image gives way to the next good one of its class, so that batches keep their size
    and their labels; in evaluation it is left out.
    """

    def __init__(self, source: Source, transform: Transform, *, replace_corrupt: bool) -> None:
        self.source = source
        self.transform = transform
        self.replace_corrupt = replace_corrupt
        self.corrupt: set[int] = set()

    def __call__(self, plan: BatchPlan) -> Batch:
        numbers = self.transform.draw(plan.epoch, plan.indices)
        images, kept = [], []
        for position, index in enumerate(plan.indices.tolist()):
            pixels = self._pixels(index)
            if pixels is not None:
                images.append(self._apply(index, pixels, numbers[position]))
                kept.append(position)
        labels = self.source.labels
        return Batch(
            images=torch.stack(images) if images else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
            labels=torch.from_numpy(labels[plan.indices[kept]]),
            global_labels=torch.from_numpy(labels[plan.global_indices]),
            step=plan.step,
        )

    def _apply(self, index: int, pixels: Tensor, numbers: Numbers) -> Tensor:
        try:
            return self.transform.apply(pixels, numbers)
        except Exception as error:
            raise RuntimeError(f"{self.source.describe(index)}: {error}") from error

    def _pixels(self, index: int) -> Tensor | None:
        pixels = self._read(index)
        if pixels is not None or not self.replace_corrupt:
            return pixels
        same_class = np.flatnonzero(self.source.labels == self.source.labels[index])
        start = int(np.searchsorted(same_class, index))
        for other in np.roll(same_class, -start)[1:].tolist():
            if (pixels := self._read(other)) is not None:
                return pixels
        name = self.source.classes[self.source.labels[index]]
        raise UserError(f"dataset: every training image of class {name!r} is corrupt")

    def _read(self, index: int) -> Tensor | None:
        try:
            return self.source.read(index)
        except CorruptImage as error:
            if index not in self.corrupt:
                self.corrupt.add(index)
                log.warning("skipped corrupt image %s: %s", self.source.describe(index), error)
            return None
        except Exception as error:
            raise RuntimeError(f"{self.source.describe(index)}: {error}") from error


class Loader:
    """Loads batches in order, `num_threads` at a time; 0 loads each when it is asked for.

    Use as a context manager: leaving it, mid-epoch too, leaves no thread behind.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="loader") if num_threads else None

    def batches(self, load: Callable[[BatchPlan], Batch], plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """The batches of these plans. An error in a thread is raised here, in its turn."""
        if self._pool is None:
            yield from map(load, plans)
            return
        waiting: deque[Future[Batch]] = deque()
        try:
            for plan in plans:
                waiting.append(self._pool.submit(load, plan))
                if len(waiting) >= self._num_threads + READY_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def default_num_threads(processes_on_this_machine: int) -> int:
    """Threads for each process: its share of the cores, and no more than help."""
    return max(1, min(MAX_THREADS, usable_cores() // processes_on_this_machine))
