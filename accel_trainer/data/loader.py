"""Batches of pixels, loaded by threads of the training process.

Decoding and resizing release the interpreter's lock, so threads load as fast as worker processes would,
without copying batches between processes and without anything to leave behind.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.core.errors import AccelTrainError, UserError
from accel_trainer.core.outage import StoppedWaiting, failure, persistently
from accel_trainer.core.processes import usable_cores
from accel_trainer.core.spans import Phase, span, spanned
from accel_trainer.core.text import listed
from accel_trainer.data.augment.mixing import Labels, Mixer
from accel_trainer.data.batch_plan import BatchPlan, Indices
from accel_trainer.data.dataset import ImageDataset, ReadsTogether, StoresEncoded, name_or_number
from accel_trainer.data.decode import CorruptImage, decode
from accel_trainer.data.native.images import TOGETHER, Images
from accel_trainer.data.partial_decode import partial_decoder
from accel_trainer.data.shared_work import (
    Buffers,
    ParallelTask,
    SingleTask,
    in_order,
    on_one_core,
    run_here,
    run_shared,
    single_core_threads,
)
from accel_trainer.data.views import Inputs, ViewParameters, Views

log = logging.getLogger(__name__)

# Batches ready or being loaded beyond the next one.
READY_AHEAD = 2
# Images that a thread loads in one go.
MAX_PART = 16
MAX_THREADS = 8
# More of the images are no accident.
MAX_CORRUPT = 0.01
REPAIR = "repair it or take it out, or let another image take its place (replace)"


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


Contents = Sequence[bytes]
"""Images as they are encoded; without a byte where one could not be read."""


def _runs(which: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """Where successive values are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], which, [False]])))
    return (slice(start, end) for start, end in edges.reshape(-1, 2).tolist())


class ImageReader:
    """Loads the images of a batch plan; corrupt ones are named once, counted, and skipped, or forbidden.

    In training a corrupt image gives way to the next good one of its class, so that batches keep their size
    and their labels; in evaluation it is left out.

    corrupt: all that were read and are so, also for batches that are still to come; met: those of the batches that a
    loader has given out, which do not depend on how many threads it has.
    """

    def __init__(
        self, source: ImageDataset, views: Views, *, replace_corrupt: bool, forbid_corrupt: bool = False
    ) -> None:
        self.source = source
        self.views = views
        self._together = source if isinstance(source, ReadsTogether) else None
        self.replace_corrupt, self.forbid_corrupt = replace_corrupt, forbid_corrupt
        self.corrupt: set[int] = set()
        self.met: set[int] = set()
        self.decoder = partial_decoder()
        self._naming = threading.Lock()

    def __call__(self, plan: BatchPlan) -> Batch:
        """The batch of a plan, loaded in this thread. Raises UserError for a class whose images are all corrupt."""
        return run_here(self.begin(plan))

    @spanned(Phase.LOADING)
    def begin(self, plan: BatchPlan, buffers: Buffers | None = None) -> "BatchAssembly":
        """The same as a task that threads can share; its memory is from `buffers`, where given."""
        return BatchAssembly(self, plan, buffers)

    def may_be_corrupt(self, count: int) -> bool:
        """Whether so many corrupt images may be in this data set: not all, and no more than one or MAX_CORRUPT."""
        total = len(self.source.labels)
        return count <= max(1, MAX_CORRUPT * total) and count < total

    def check_share(self, met: Collection[int] | None = None) -> None:
        """Refuse a data set with too many corrupt images. met: those, by default the reader's own. Raises UserError."""
        met = self.met if met is None else met
        count, total = len(met), len(self.source.labels)
        if self.may_be_corrupt(count):
            return
        names = listed(map(self._name, sorted(met)[:3]), 3)
        what = "training" if self.replace_corrupt else "validation"
        raise UserError(
            f"{count} of {total:,} {what} images are corrupt, which is more than {MAX_CORRUPT:.0%}: {names}"
            f"{f' and {count - 3} more' if count > 3 else ''}",
            key="dataset",
            hint="the log names each; repair them or take them out",
        )

    def _name(self, index: int) -> str:
        return name_or_number(self.source, index)

    def render(self, indices: Indices, drawn: ViewParameters, out: Tensor, met: set[int]) -> npt.NDArray[np.bool_]:
        """Write all views of some images, image by image; which of them can be read, bool (images,). Corrupt images
        are added to `met`."""
        is_there = np.zeros(len(indices), dtype=bool)
        room = self.views.room(out)
        for group, contents in self._encoded_in_groups(indices):
            rows = self.rows(group)
            is_there[group] = self._render_group(indices[group], contents, drawn[rows], room[rows], met)
        for missing in np.flatnonzero(~is_there).tolist():
            room[self.rows(slice(missing, missing + 1))] = 0
        self._finish(indices, room, drawn, out)
        return is_there

    def _render_group(
        self, indices: Indices, contents: Contents, drawn: ViewParameters, room: Tensor, met: set[int]
    ) -> npt.NDArray[np.bool_]:
        is_there = np.zeros(len(indices), dtype=bool)
        if contents and self.decoder is not None:
            with span(Phase.READING):
                is_there = self.views.cut_jpegs(self.decoder, contents, drawn, room)
        for run in _runs(~is_there):
            for start, images in self._read_in_groups(indices[run], contents[run], met):
                group = slice(run.start + start, run.start + start + len(images))
                self._cut(indices[group], images, drawn[self.rows(group)], room[self.rows(group)])
                is_there[group] = True
        return is_there

    def _encoded_in_groups(self, indices: Indices) -> Iterator[tuple[slice, Contents]]:
        """All images in groups, with what is read of them before they are decoded, as much as fits into the processor's
        caches: nothing where JPEGs are decoded whole anyway, or where pixels are stored."""
        start, size, contents = 0, 0, list[bytes]()
        for index in indices.tolist():
            content = self._encoded(index)
            if content is None:
                break
            contents.append(content)
            size += len(content)
            if size >= TOGETHER:
                yield slice(start, start + len(contents)), contents
                start, size, contents = start + len(contents), 0, []
        if contents:
            yield slice(start, start + len(contents)), contents
            start += len(contents)
        if start < len(indices):
            yield slice(start, len(indices)), []

    @spanned(Phase.READING)
    def _encoded(self, index: int) -> bytes | None:
        if self.decoder is None or not isinstance(self.source, StoresEncoded):
            return None
        try:
            return self.source.encoded(index)
        except (AccelTrainError, StoppedWaiting):
            raise
        except Exception:
            return b""  # it is read again, by `_read`, which says what is wrong with it

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
            rows = self.rows(some)
            self.views.finish(room[rows], drawn[rows], out[rows])

        with span(Phase.RENDERING, len(indices)):
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

    def _read_in_groups(self, indices: Indices, contents: Contents, met: set[int]) -> Iterator[tuple[int, Images]]:
        """Successive images, as many as fit into the processor's caches, and the position of the first of them; those
        that cannot be read are left out. contents: what was read of them before, or nothing."""
        start = 0
        while start < len(indices) and not contents and (images := self._read_together(indices[start:])) is not None:
            yield start, images
            start += len(images)
        group: list[Tensor] = []
        size = 0
        for position in range(start, len(indices)):
            pixels = self._pixels(int(indices[position]), met, contents[position] if contents else b"")
            if pixels is not None:
                group.append(pixels)
                size += pixels.numel()
            if group and (pixels is None or size >= TOGETHER or position == len(indices) - 1):
                yield position + (pixels is not None) - len(group), Images.of(group)
                group, size = [], 0

    def _read_together(self, indices: Indices) -> Images | None:
        if self._together is None:
            return None
        with span(Phase.READING):
            return self._together.read_together(indices)

    def _pixels(self, index: int, met: set[int], content: bytes) -> Tensor | None:
        pixels = self._read(index, met, content)
        if pixels is not None or not self.replace_corrupt:
            return pixels
        same_class = np.flatnonzero(self.source.labels == self.source.labels[index])
        start = int(np.searchsorted(same_class, index))
        for other in np.roll(same_class, -start)[1:].tolist():
            if (pixels := self._read(other, met)) is not None:
                return pixels
        name = self.source.classes[self.source.labels[index]]
        raise UserError(f"every training image of class {name!r} is corrupt", key="dataset")

    @spanned(Phase.READING)
    def _read(self, index: int, met: set[int], content: bytes = b"") -> Tensor | None:
        """The pixels of an image, None where it is corrupt. content: its encoded bytes, where they were read already.
        Raises MachineFailure where it cannot be read."""
        read = partial(decode, content) if content else partial(self.source.read, index)
        try:
            return persistently(read, partial(self.source.describe, index))
        except CorruptImage as error:
            with self._naming:
                is_new = index not in self.corrupt
                self.corrupt.add(index)
            met.add(index)
            if self.forbid_corrupt:
                raise UserError(f"{self._name(index)}: {error}", key="corrupt_images", hint=REPAIR) from error
            if is_new:
                log.warning("skipped corrupt image %s: %s", self._name(index), error)
            return None
        except (AccelTrainError, StoppedWaiting):
            raise
        except OSError as error:
            raise failure(error, partial(self.source.describe, index)) from error
        except Exception as error:
            raise RuntimeError(f"{self.source.describe(index)}: {error}") from error


class BatchAssembly:
    """A batch being loaded: everything is drawn, and there is room for its images.

    Where images are mixed, each with the one before it in the global batch and the first with the last, there is one
    image more than the plan has.
    """

    def __init__(self, read: ImageReader, plan: BatchPlan, buffers: Buffers | None = None) -> None:
        self.read, self.plan, views = read, plan, read.views
        before = plan.global_indices[[plan.start - 1]] if views.mixer is not None else plan.indices[:0]
        self.indices = np.concatenate([before, plan.indices])
        self.drawn = views.draw(views.draws(plan, self.indices))
        self.rendered = views.empty(len(self.indices), buffers)
        self.is_there = np.zeros(len(self.indices), dtype=bool)
        self.corrupt: set[int] = set()

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        """Calls that render at most MAX_PART images each, in at least `number` parts where there are so many images."""
        count = len(self.indices)
        size = max(1, min(MAX_PART, -(-count // number)))
        return [partial(self._render, range(start, min(start + size, count))) for start in range(0, count, size)]

    @spanned(Phase.LOADING)
    def _render(self, positions: range) -> None:
        part = slice(positions.start, positions.stop)
        rows = self.read.rows(part)
        self.is_there[part] = self.read.render(self.indices[part], self.drawn[rows], self.rendered[rows], self.corrupt)

    @spanned(Phase.LOADING)
    def result(self) -> Batch:
        """The batch, without images that cannot be read."""
        if not self.is_there.all():
            rows = np.flatnonzero(np.repeat(self.is_there, self.read.views.num_views))
            self.rendered, self.drawn = self.rendered[torch.from_numpy(rows)], self.drawn[rows]
        mixer = self.read.views.mixer
        return self._plain() if mixer is None else self._mixed(mixer)

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

        if self._pool is None:
            for plan in plans:
                yield on_one_core(partial(lambda plan: run_here(begin(plan)), plan))
            return
        pool = self._pool

        def submit(plan: BatchPlan) -> Future[Batch]:
            return run_shared(pool, partial(begin, plan), self.num_threads)

        yield from in_order(submit, plans, 1 + READY_AHEAD)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; batches that were asked for in advance are dropped. Harmless when repeated."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._buffers.release()


def default_num_threads(processes_on_this_machine: int) -> int:
    """Threads for each process: its part of the cores that this process may use, 1 to MAX_THREADS."""
    return max(1, min(MAX_THREADS, usable_cores() // processes_on_this_machine))
