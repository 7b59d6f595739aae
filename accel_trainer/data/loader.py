"""Batches of pixels, loaded by threads of the training process.

Decoding and resizing release the interpreter's lock, so threads load as fast as worker processes would,
without copying batches between processes and without anything to leave behind.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
from torch import Tensor

from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.mixing import Labels
from accel_trainer.data.sampling import BatchPlan, Indices
from accel_trainer.data.source import Source
from accel_trainer.data.threads import on_one_core, single_core_threads
from accel_trainer.data.views import Drawn, Inputs, Views
from accel_trainer.errors import UserError
from accel_trainer.processes import usable_cores
from accel_trainer.spans import Phase, spanned

log = logging.getLogger(__name__)

# Batches ready or being loaded beyond one for each thread.
READY_AHEAD = 2
MAX_THREADS = 8


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch.

    inputs: what the model is shown, of n examples (views, or clips); labels: theirs, int64 (n,) or mixed;
    global_labels: those of the whole optimizer step, on all processes; step: within the epoch, from 0.
    """

    inputs: Inputs
    labels: Labels
    global_labels: Labels
    step: int


class ImageReader:
    """Loads the images of a batch plan; corrupt ones are named once, counted, and skipped.

    In training a corrupt image gives way to the next good one of its class, so that batches keep their size
    and their labels; in evaluation it is left out.
    """

    def __init__(self, source: Source, views: Views, *, replace_corrupt: bool) -> None:
        self.source = source
        self.views = views
        self.replace_corrupt = replace_corrupt
        self.corrupt: set[int] = set()

    @spanned(Phase.LOADING)
    def __call__(self, plan: BatchPlan) -> Batch:
        return self._plain(plan) if self.views.mixer is None else self._mixed(plan)

    def _plain(self, plan: BatchPlan) -> Batch:
        shown, drawn, kept = self._show(plan, plan.indices)
        return Batch(
            inputs=self.views.collect(shown, drawn, None),
            labels=self.views.labels(self.source.labels[plan.indices[kept]]),
            global_labels=self.views.labels(self.source.labels[plan.global_indices]),
            step=plan.step,
        )

    def _mixed(self, plan: BatchPlan) -> Batch:
        """Each image mixed with the one before it in the global batch, the first with the last: one more is loaded
        than the plan has."""
        shown, drawn, _ = self._show(plan, np.concatenate([plan.global_indices[[plan.start - 1]], plan.indices]))
        views, labels = self.views, self.source.labels[plan.global_indices]
        mixing = views.draw_mixing(views.draws(plan, plan.global_indices))
        global_labels = views.mixed_labels(labels, np.roll(labels, 1), mixing)
        return Batch(
            inputs=views.collect(shown, drawn, mixing[_own(plan, views.num_views)]),
            labels=global_labels[_own(plan, views.examples_per_image)],
            global_labels=global_labels,
            step=plan.step,
        )

    def _show(self, plan: BatchPlan, indices: Indices) -> tuple[Tensor, Drawn, list[int]]:
        """All views of these images that can be read, what was drawn for them, and which images they are."""
        views, each = self.views, self.views.num_views
        drawn = views.draw(views.draws(plan, indices))
        shown, kept = views.empty(len(indices)), list[int]()
        for position, index in enumerate(indices.tolist()):
            pixels = self._pixels(index)
            if pixels is None:
                continue
            start, room = position * each, len(kept) * each
            self._show_one(index, pixels, drawn[start : start + each], shown[room : room + each])
            kept.append(position)
        if len(kept) < len(indices):
            shown = shown[: len(kept) * each]
            drawn = drawn[(np.array(kept, dtype=np.int64)[:, None] * each + np.arange(each)).ravel()]
        return shown, drawn, kept

    @spanned(Phase.SHOWING)
    def _show_one(self, index: int, pixels: Tensor, drawn: Drawn, out: Tensor) -> None:
        try:
            self.views.show(pixels, drawn, out)
        except UserError:  # of an occluder's file: not the image's fault
            raise
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

    @spanned(Phase.READING)
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


def _own(plan: BatchPlan, each: int) -> slice:
    """The part of this plan in what the global batch has, `each` for every image."""
    return slice(plan.start * each, (plan.start + len(plan.indices)) * each)


class Loader:
    """Loads batches in order, `num_threads` at a time; 0 loads each when it is asked for.

    Use as a context manager: leaving it, mid-epoch too, leaves no thread behind.
    """

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._pool = None
        if num_threads:
            self._pool = single_core_threads(num_threads, "loader")

    def batches(self, load: Callable[[BatchPlan], Batch], plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """The batches of these plans. An error in a thread is raised here, in its turn."""
        if self._pool is None:
            for plan in plans:
                yield on_one_core(partial(load, plan))
            return
        waiting: deque[Future[Batch]] = deque()
        try:
            for plan in plans:
                waiting.append(self._pool.submit(load, plan))
                if len(waiting) >= self.num_threads + READY_AHEAD:
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
