"""Images of a source, read many at once; what is done about those that are corrupt."""

import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from accel_trainer.core.errors import AccelTrainError, UserError
from accel_trainer.core.outage import StoppedWaiting, failure, persistently
from accel_trainer.core.spans import Phase, span, spanned
from accel_trainer.core.text import listed
from accel_trainer.data.batch_plan import Indices
from accel_trainer.data.dataset import (
    ImageDataset,
    ReadsAhead,
    ReadsTogether,
    StoresEncoded,
    StoresPixels,
    name_or_number,
)
from accel_trainer.data.decode import CorruptImage, decode
from accel_trainer.data.native.images import TOGETHER, Images
from accel_trainer.data.native.stored import StoredImages
from accel_trainer.data.partial_decode import partial_decoder

log = logging.getLogger(__name__)

# More of the images are no accident.
MAX_CORRUPT = 0.01
REPAIR = "repair it or take it out, or let another image take its place (replace)"
Contents = Sequence[bytes]
"""Images as they are encoded; without a byte where one could not be read."""


class SourceReader:
    """Reads the images of a source; corrupt ones are named once, counted, and skipped, or forbidden.

    In training a corrupt image gives way to the next good one of its class, so that batches keep their size
    and their labels; in evaluation it is left out.

    corrupt: all that were read and are so, also for batches that are still to come; met: those of the batches that a
    loader has given out, which do not depend on how many threads it has.
    """

    def __init__(self, source: ImageDataset, *, replace_corrupt: bool, forbid_corrupt: bool = False) -> None:
        self.source = source
        # Asked once: each time such a question takes longer than a small image.
        self._together = source if isinstance(source, ReadsTogether) else None
        self._stores_encoded = source if isinstance(source, StoresEncoded) else None
        self._stores_pixels = source if isinstance(source, StoresPixels) else None
        self.reads_ahead = source if isinstance(source, ReadsAhead) else None
        self.replace_corrupt, self.forbid_corrupt = replace_corrupt, forbid_corrupt
        self.corrupt: set[int] = set()
        self.met: set[int] = set()
        # It is tried before it is used: only where there may be JPEGs.
        self.decoder = None if self._stores_encoded is None else partial_decoder()
        self._naming = threading.Lock()

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

    def stored(self, indices: Indices) -> StoredImages | None:
        """Where the pixels of these images are in a file, if they are."""
        return None if self._stores_pixels is None else self._stores_pixels.stored(indices)

    def encoded_in_groups(self, indices: Indices) -> Iterator[tuple[slice, Contents]]:
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
        if self.decoder is None or self._stores_encoded is None:
            return None
        try:
            return self._stores_encoded.encoded(index)
        except (AccelTrainError, StoppedWaiting):
            raise
        except Exception:
            return b""  # it is read again, by `_read`, which says what is wrong with it

    def read_in_groups(self, indices: Indices, contents: Contents, met: set[int]) -> Iterator[tuple[int, Images]]:
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
