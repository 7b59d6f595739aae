"""Batches of pixels, loaded by threads of the training process.

Decoding and resizing release the interpreter's lock, so threads load as fast as worker processes would,
without copying batches between processes and without anything to leave behind.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.core.errors import AccelTrainError
from accel_trainer.core.outage import StoppedWaiting
from accel_trainer.core.processes import usable_cores
from accel_trainer.core.spans import Phase, span, spanned
from accel_trainer.data.augment.mixing import Labels, Mixer
from accel_trainer.data.batch_plan import BatchPlan, Indices
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.native.images import Images
from accel_trainer.data.native.library import kernel
from accel_trainer.data.native.rows import StoredRows
from accel_trainer.data.native.stored import StoredCuts
from accel_trainer.data.shared_work import (
    Buffers,
    ParallelTask,
    SingleTask,
    ahead_of,
    in_order,
    on_one_core,
    run_here,
    run_shared,
    single_core_threads,
)
from accel_trainer.data.source_reader import Contents, SourceReader
from accel_trainer.data.views import Inputs, ViewParameters, Views

# Batches ready or being loaded beyond the next one.
READY_AHEAD = 2
# Batches that the system is told of before they are begun.
READ_AHEAD = 2
# Images that a thread loads in one go.
MAX_PART = 16
MAX_THREADS = 8


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch.

    inputs: those of the model, for n examples (views, or clips); labels: theirs, int64 (n,) or mixed;
    global_labels: those of the optimizer step, on all processes; step: within the epoch, from 0; corrupt: the images
    that were found to be so when it was loaded.
    """

    inputs: Inputs
    labels: Labels
    global_labels: Labels
    step: int
    corrupt: frozenset[int] = frozenset()


def _runs(which: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """Where successive values are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], which, [False]])))
    return (slice(start, end) for start, end in edges.reshape(-1, 2).tolist())


class ImageReader(SourceReader):
    """Loads the images of a batch plan, as views."""

    def __init__(
        self, source: ImageDataset, views: Views, *, replace_corrupt: bool, forbid_corrupt: bool = False
    ) -> None:
        super().__init__(source, replace_corrupt=replace_corrupt, forbid_corrupt=forbid_corrupt)
        self.views = views
        if not views.are_cut_in_kernel:
            self.decoder = None

    def __call__(self, plan: BatchPlan) -> Batch:
        """The batch of a plan, loaded in this thread. Raises UserError for a class whose images are all corrupt."""
        return run_here(self.begin(plan))

    @spanned(Phase.LOADING)
    def begin(self, plan: BatchPlan, buffers: Buffers | None = None) -> "BatchAssembly":
        """The same as a task that threads can share; its memory is from `buffers`, where given."""
        return BatchAssembly(self, plan, buffers)

    def stored_rows(
        self, indices: Indices, drawn: ViewParameters, out: Tensor
    ) -> tuple[StoredRows | None, StoredCuts | None]:
        """Where the pixels of images are in a file: their rows, if the kernel does all that is done to them; else what
        is cut out of them."""
        compiled = kernel() if self.views.are_cut_in_kernel else None
        stored = self.stored(indices) if compiled is not None and len(indices) else None
        if compiled is None or stored is None:
            return None, None
        cuts, stages = self.views.crop.cuts(stored.sizes, drawn.crop), self.views.stages(drawn)
        if stages is None:
            return None, StoredCuts(compiled, stored, cuts)
        return StoredRows(compiled, stored, cuts, stages, out), None

    def render(self, indices: Indices, drawn: ViewParameters, out: Tensor, met: set[int]) -> npt.NDArray[np.bool_]:
        """Write all views of some images, image by image; which of them can be read, bool (images,). Corrupt images
        are added to `met`."""
        room = self.views.room(out)
        is_there = self._cut_in_groups(indices, drawn, room, met)
        self._finish(indices, room, drawn, out)
        self.views.leave(room, out)
        return is_there

    def render_stored(self, stored: StoredCuts, part: slice, batch: "BatchAssembly") -> bool:
        """The same of a part of a batch whose images are in a file, in one call; whether that could be done."""
        views, rows = self.views, self.rows(part)
        out = batch.rendered[rows]
        room = views.room(out)
        with span(Phase.READING):
            if not views.cut_stored(stored, part, room, 0):
                return False
        self._finish(batch.indices[part], room, batch.drawn[rows], out)
        views.leave(room, out)
        return True

    def _cut_in_groups(
        self, indices: Indices, drawn: ViewParameters, room: Tensor, met: set[int]
    ) -> npt.NDArray[np.bool_]:
        is_there = np.zeros(len(indices), dtype=bool)
        for group, contents in self.encoded_in_groups(indices):
            rows = self.rows(group)
            is_there[group] = self._render_group(indices[group], contents, drawn[rows], room[rows], met)
        for missing in np.flatnonzero(~is_there).tolist():
            room[self.rows(slice(missing, missing + 1))] = 0
        return is_there

    def _render_group(
        self, indices: Indices, contents: Contents, drawn: ViewParameters, room: Tensor, met: set[int]
    ) -> npt.NDArray[np.bool_]:
        is_there = np.zeros(len(indices), dtype=bool)
        if contents and self.decoder is not None:
            with span(Phase.READING):
                is_there = self.views.cut_jpegs(self.decoder, contents, drawn, room)
        for run in _runs(~is_there):
            for start, images in self.read_in_groups(indices[run], contents[run], met):
                group = slice(run.start + start, run.start + start + len(images))
                self._cut(indices[group], images, drawn[self.rows(group)], room[self.rows(group)])
                is_there[group] = True
        return is_there

    def rows(self, images: slice) -> slice:
        """Where the views of images are."""
        return slice(images.start * self.views.num_views, images.stop * self.views.num_views)

    def _cut(self, indices: Indices, images: Images, drawn: ViewParameters, room: Tensor) -> None:
        def cut(some: slice) -> None:
            self.views.cut(images.some(some), drawn[self.rows(some)], room[self.rows(some)])

        with span(Phase.RENDERING, 0):
            self._named(indices, cut)

    def _finish(self, indices: Indices, room: Tensor, drawn: ViewParameters, out: Tensor) -> None:
        def finish(some: slice) -> None:
            if some.stop - some.start == len(indices):  # each tensor that is sliced waits for the lock
                self.views.finish(room, drawn, out)
            else:
                rows = self.rows(some)
                self.views.finish(room[rows], drawn[rows], out[rows])

        with span(Phase.RENDERING, len(indices)):
            if not self.views.ends_with_cut:
                self._named(indices, finish)

    def _named(self, indices: Indices, act: Callable[[slice], None]) -> None:
        """Do something with all of these images; where that goes wrong with each, to say with which it does."""
        try:
            act(slice(0, len(indices)))
        except (AccelTrainError, StoppedWaiting):  # of an occluder's file: not the image's fault
            raise
        except Exception as error:
            for position, index in enumerate(indices.tolist()):
                try:
                    act(slice(position, position + 1))
                except Exception as own:
                    raise RuntimeError(f"{self._name(index)}: {own}") from own
            raise RuntimeError(f"{self._name(int(indices[0]))}, or an image after it: {error}") from error


class BatchAssembly:
    """A batch being loaded: everything is drawn, and there is room for its images.

    Where images are mixed, each with the one before it in the global batch and the first with the last, there is one
    image more than the plan has.
    """

    def __init__(self, read: ImageReader, plan: BatchPlan, buffers: Buffers | None = None) -> None:
        self.read, self.plan, views = read, plan, read.views
        before = plan.global_indices[[plan.start - 1]] if views.mixer is not None else plan.indices[:0]
        self.indices = np.concatenate([before, plan.indices])
        self.drawn = views.prepare(views.draw(views.draws(plan, self.indices)))
        self.rendered = views.empty(len(self.indices), buffers)
        self.shared, self.stored = read.stored_rows(self.indices, self.drawn, self.rendered)
        self.is_there = np.zeros(len(self.indices), dtype=bool)
        self.corrupt: set[int] = set()

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        """Calls that render images, at least `number` where there are so many images; of what torch has a part in at
        most MAX_PART each."""
        count = len(self.indices)
        if self.shared is not None:  # the kernel divides the images, one by one: a call for each thread
            return [partial(self._share, self.shared)] * min(number, count)
        size = max(1, min(MAX_PART, -(-count // number)))
        return [partial(self._render, range(start, min(start + size, count))) for start in range(0, count, size)]

    def _share(self, rows: StoredRows) -> None:
        """Make the rows that other threads do not; those that the kernel cannot make, as `_render` does."""
        if rows.are_all_taken:
            return
        with span(Phase.LOADING):
            while True:
                with span(Phase.RENDERING, 0):
                    left = rows.make()
                if left is None:
                    return
                self._render(range(left, left + 1))

    @spanned(Phase.LOADING)
    def _render(self, positions: range) -> None:
        part = slice(positions.start, positions.stop)
        if self.stored is not None and self.read.render_stored(self.stored, part, self):
            self.is_there[part] = True
            return
        rows = self.read.rows(part)
        self.is_there[part] = self.read.render(self.indices[part], self.drawn[rows], self.rendered[rows], self.corrupt)

    @spanned(Phase.LOADING)
    def result(self) -> Batch:
        """The batch, without images that cannot be read."""
        if self.shared is not None:
            self._take(self.shared)
        if not self.is_there.all():
            rows = np.flatnonzero(np.repeat(self.is_there, self.read.views.num_views))
            self.rendered, self.drawn = self.rendered[torch.from_numpy(rows)], self.drawn[rows]
        mixer = self.read.views.mixer
        return self._plain() if mixer is None else self._mixed(mixer)

    def _take(self, rows: StoredRows) -> None:
        """The rows that the kernel has made; those of them that do not count are rendered once more."""
        made = rows.made()
        with span(Phase.RENDERING, int(np.count_nonzero(made))):
            self.is_there |= made
        for position in np.flatnonzero(rows.is_made & ~made).tolist():
            self._render(range(position, position + 1))

    def _plain(self) -> Batch:
        views, labels, plan = self.read.views, self.read.source.labels, self.plan
        return Batch(
            inputs=views.collate(self.rendered, self.drawn, None),
            labels=views.labels(labels[plan.indices[self.is_there]]),
            global_labels=views.labels(labels[plan.global_indices]),
            step=plan.step,
            corrupt=frozenset(self.corrupt),
        )

    def _mixed(self, mixer: Mixer) -> Batch:
        views, plan = self.read.views, self.plan
        labels = self.read.source.labels[plan.global_indices]
        mixing = views.draw_mixing(mixer, views.draws(plan, plan.global_indices))
        global_labels = views.mixed_labels(labels, np.roll(labels, 1), mixing)
        return Batch(
            inputs=views.collate(self.rendered, self.drawn, mixing[_local_slice(plan, views.num_views)]),
            labels=global_labels[_local_slice(plan, views.examples_per_image)],
            global_labels=global_labels,
            step=plan.step,
            corrupt=frozenset(self.corrupt),
        )


def _local_slice(plan: BatchPlan, each: int) -> slice:
    """Where the images of this plan are in the global batch, with `each` rows for every image."""
    return slice(plan.start * each, (plan.start + len(plan.indices)) * each)


class Loader:
    """Loads batches in order, each by all of `num_threads`; 0 loads each when it is asked for.

    So the first batch of an epoch is there soon, and as many batches are in memory whatever the number of threads. Use
    as a context manager: leaving it, mid-epoch too, leaves no thread behind, and no memory but that of batches that
    are still used.
    """

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads
        self._buffers = Buffers()
        self._is_closing = threading.Event()
        self._pool = None
        if num_threads:
            self._pool = single_core_threads(num_threads, "loader")

    def batches(self, load: ImageReader | Callable[[BatchPlan], Batch], plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """The batches of these plans. An error in a thread is raised here, in its turn."""
        for batch in self._batches(load, plans):
            if isinstance(load, ImageReader):
                load.met |= batch.corrupt
            yield batch

    def _batches(self, load: ImageReader | Callable[[BatchPlan], Batch], plans: Iterable[BatchPlan]) -> Iterator[Batch]:

        def begin(plan: BatchPlan) -> ParallelTask[Batch]:
            if isinstance(load, ImageReader):
                return load.begin(plan, self._buffers)
            return SingleTask(partial(load, plan))

        plans = self._told(load, plans)
        if self._pool is None:
            for plan in plans:
                yield on_one_core(partial(lambda plan: run_here(begin(plan)), plan))
            return
        pool = self._pool

        def submit(plan: BatchPlan) -> Future[Batch]:
            return run_shared(pool, partial(begin, plan), self.num_threads, self._is_closing)

        yield from in_order(submit, plans, 1 + READY_AHEAD)

    def _told(
        self, load: ImageReader | Callable[[BatchPlan], Batch], plans: Iterable[BatchPlan]
    ) -> Iterable[BatchPlan]:
        """The plans; of each the system is told some batches before, where its images can be read ahead."""
        source = load.reads_ahead if isinstance(load, ImageReader) else None
        if source is None:
            return plans

        def tell(plan: BatchPlan) -> None:
            if self._pool is None:
                source.will_need(plan.indices)
            else:
                self._pool.submit(source.will_need, plan.indices)

        return ahead_of(plans, READ_AHEAD, tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; batches that were asked for in advance are dropped. Harmless when repeated."""
        self._is_closing.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._buffers.release()


def default_num_threads(processes_on_this_machine: int) -> int:
    """Threads for each process: its part of the cores that this process may use, 1 to MAX_THREADS."""
    return max(1, min(MAX_THREADS, usable_cores() // processes_on_this_machine))
