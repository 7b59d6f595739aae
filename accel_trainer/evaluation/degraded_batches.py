"""Batches of images, each decoded and cropped once and shown under many conditions, ahead of who looks at them.

Pixels are degraded as 8 bits, between the crop and the normalization of the validation: what is not degraded is what
the validation sees, bit for bit. They are keyed by the image's name, so nothing depends on batches, threads or
processes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from accel_trainer.core.errors import AccelTrainError
from accel_trainer.core.outage import StoppedWaiting
from accel_trainer.data.batch_plan import BatchPlan, Indices
from accel_trainer.data.loader import Batch, ImageReader, Loader
from accel_trainer.data.shared_work import Buffers, in_order, on_one_core, run_here, run_shared, single_core_threads
from accel_trainer.data.views import Inputs
from accel_trainer.degradations.degradation import Condition, Pixels

Digests = npt.NDArray[np.uint8]
DIGEST_BYTES = 16
# Conditions of a batch that are made ahead of the one that is looked at.
AHEAD = 2
# Images that a thread degrades in one go: a condition of a batch is soon there, and few calls wait for the lock.
MAX_PART = 8


@dataclass(frozen=True)
class ShownBatch:
    """The images of a batch under one condition.

    place: of the condition among the distinct ones; indices: of the images in their data set, also of those that are
    corrupt, (n,) bool; inputs: of the others; digests: of the pixels of each, uint8 (n, DIGEST_BYTES), 0 where an image
    is corrupt.
    """

    place: int
    indices: Indices
    is_corrupt: npt.NDArray[np.bool_]
    inputs: Inputs
    digests: Digests


@dataclass(frozen=True)
class _Loaded:
    """A batch whose images are cropped. pixels: (images, size, size, 3), of those that are not corrupt."""

    indices: Indices
    is_corrupt: npt.NDArray[np.bool_]
    names: Sequence[str]
    batch: Batch
    pixels: npt.NDArray[np.uint8]

    @property
    def num_views(self) -> int:
        """Frames of a clip, which all show the same image."""
        return len(self.batch.inputs.images) // max(1, len(self.pixels))


class _Degrading:
    """A batch being shown under a condition: each thread takes some of its images."""

    def __init__(self, loaded: _Loaded, place: int, condition: Condition | None, buffers: Buffers) -> None:
        self.loaded, self.place, self.condition = loaded, place, condition
        images = loaded.batch.inputs.images
        self.images = images if condition is None else buffers.empty(tuple(images.shape), torch.uint8)
        self.digests = np.zeros((len(loaded.pixels), DIGEST_BYTES), np.uint8)

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        """Calls that degrade images, some each."""
        count = len(self.loaded.pixels)
        size = max(1, min(MAX_PART, -(-count // number)))
        return [partial(self._degrade, range(start, min(start + size, count))) for start in range(0, count, size)]

    def _degrade(self, rows: range) -> None:
        views = self.loaded.num_views
        for row in rows:
            pixels = self.loaded.pixels[row]
            if self.condition is not None:
                pixels = self._degraded(self.condition, pixels, self.loaded.names[row])
                planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
                self.images[row * views : (row + 1) * views] = planes
            digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=DIGEST_BYTES).digest()
            self.digests[row] = np.frombuffer(digest, np.uint8)

    def _degraded(self, condition: Condition, pixels: Pixels, name: str) -> Pixels:
        try:
            return condition.degrade(pixels, name)
        except (AccelTrainError, StoppedWaiting):  # of a file that it is made with: not the image's fault
            raise
        except Exception as error:
            raise RuntimeError(f"{condition.name} of {name}: {error}") from error

    def result(self) -> ShownBatch:
        """The batch, once all are degraded."""
        loaded = self.loaded
        digests = np.zeros((len(loaded.indices), DIGEST_BYTES), np.uint8)
        digests[~loaded.is_corrupt] = self.digests
        inputs = Inputs(self.images, loaded.batch.inputs.finish)
        return ShownBatch(self.place, loaded.indices, loaded.is_corrupt, inputs, digests)


def shown_batches(
    loader: Loader,
    reader: ImageReader,
    plans: Iterable[tuple[BatchPlan, Sequence[int]]],
    distinct: Sequence[Condition | None],
    names: Sequence[str],
) -> Iterator[ShownBatch]:
    """For each batch its images under each of the conditions that are wanted of it, one after the other.

    reader: of uint8 images, whose views leave the normalization to `finish`. plans: batches, each with the places of
    its conditions in `distinct`. names: of all images, by which their pixels are keyed. As many threads as the loader
    has degrade, AHEAD conditions before theirs is taken; without any, each is degraded when it is asked for.
    """
    plans = list(plans)
    buffers = Buffers()
    loaded = map(partial(_loaded, names), (plan for plan, _ in plans), _batches(loader, reader, plans))
    work = ((one, place) for one, (_, places) in zip(loaded, plans, strict=True) for place in places)

    def begin(one: _Loaded, place: int) -> _Degrading:
        return _Degrading(one, place, distinct[place], buffers)

    try:
        if not loader.num_threads:
            for one, place in work:
                yield on_one_core(partial(lambda one, place: run_here(begin(one, place)), one, place))
            return
        with single_core_threads(loader.num_threads, "degrade") as pool:

            def submit(item: tuple[_Loaded, int]) -> Future[ShownBatch]:
                return run_shared(pool, partial(begin, *item), loader.num_threads)

            yield from in_order(submit, work, 1 + AHEAD)
    finally:
        buffers.release()


def _batches(loader: Loader, reader: ImageReader, plans: Sequence[tuple[BatchPlan, Sequence[int]]]) -> Iterator[Batch]:
    return loader.batches(reader, [plan for plan, _ in plans])


def _loaded(names: Sequence[str], plan: BatchPlan, batch: Batch) -> _Loaded:
    is_corrupt = np.isin(plan.indices, list(batch.corrupt))
    own = [names[index] for index in plan.indices[~is_corrupt].tolist()]
    images = batch.inputs.images
    first_views = images[:: max(1, len(images) // max(1, len(own)))]
    pixels = first_views.permute(0, 2, 3, 1).contiguous().numpy()
    return _Loaded(plan.indices, is_corrupt, own, batch, pixels)
