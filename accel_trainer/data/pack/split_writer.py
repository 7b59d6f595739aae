"""One split of a pack: images resized by threads, and appended to its files in the order of the data set.

Their index follows them when they are on the disk, so that it names no image that is not there: after a kill, the next
writer continues behind the last image of the index.
"""

import io
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from accel_trainer.core.errors import AccelTrainError, UserError
from accel_trainer.core.files import open_regular, read_bytes
from accel_trainer.core.outage import StoppedWaiting, persistently
from accel_trainer.data.augment.geometry import with_short_side
from accel_trainer.data.augment.resizing import resize
from accel_trainer.data.dataset import ImageDataset, name_or_number
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.pack.format import (
    AGAIN,
    MAX_INDEX,
    RECORD,
    PackedSplit,
    PixelFile,
    Records,
    corrupt_records,
    digest,
    ends,
    name_of,
)
from accel_trainer.data.shared_work import in_order, single_core_threads

log = logging.getLogger(__name__)

# Images that a thread prepares in one go; these and as many again for each other thread are in memory.
CHUNK = 16
# Bytes of images between two times that the disk is waited for.
SYNC_EVERY = 2**26


@dataclass(frozen=True)
class PackSettings:
    """How images are stored. short_side: in pixels; quality: of JPEG, 1 to 100."""

    short_side: int
    storage: Literal["raw", "jpeg"]
    quality: int | None = None


@dataclass(frozen=True)
class PackedImage:
    """An image as it is stored; a corrupt one has no height, and the reason for content."""

    content: bytes
    name: bytes
    height: int
    width: int
    label: int


# -- images -------------------------------------------------------------------------------------------------------


class PackedImages:
    """The images of a source as they are stored, prepared by threads."""

    def __init__(self, source: ImageDataset, how: PackSettings, num_threads: int) -> None:
        self.source, self.how, self.num_threads = source, how, num_threads

    def from_index(self, first: int) -> Iterator[list[PackedImage]]:
        """A chunk at a time, in order."""
        number = len(self.source.labels)
        chunks = (range(start, min(start + CHUNK, number)) for start in range(first, number, CHUNK))
        with single_core_threads(self.num_threads, "pack") as pool:
            yield from in_order(lambda chunk: pool.submit(self._packed_chunk, chunk), chunks, self.num_threads + 1)

    def _packed_chunk(self, chunk: range) -> list[PackedImage]:
        return [self._packed(index) for index in chunk]

    def _packed(self, index: int) -> PackedImage:
        label = int(self.source.labels[index])
        try:
            # Of a pack the name is on its disk, too.
            name = os.fsencode(persistently(partial(self.source.describe, index), lambda: f"image {index}"))
            pixels = downscaled(self.source, index, self.how.short_side)
        except (AccelTrainError, StoppedWaiting):
            raise
        except (OSError, MemoryError) as error:  # the machine is at fault; a pack would call it corrupt for ever
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise UserError(
                f"{name_or_number(self.source, index)}: cannot be read: {reason}; the same command resumes where it was"
            ) from error
        except CorruptImage as error:
            return PackedImage((str(error) or "corrupt").encode(errors="replace"), name, 0, 0, label)
        except Exception as error:
            raise RuntimeError(f"{self.source.describe(index)}: {error}") from error
        content = pixels.tobytes() if self.how.storage == "raw" else self._jpeg(pixels, index)
        height, width, _ = pixels.shape
        return PackedImage(content, name, height, width, label)

    def _jpeg(self, pixels: npt.NDArray[np.uint8], index: int) -> bytes:
        file = io.BytesIO()
        try:
            Image.fromarray(pixels).save(file, "JPEG", quality=self.how.quality)
        except OSError as error:  # more than 65,500 pixels wide
            raise UserError(
                f"{self.source.describe(index)}: cannot be stored as JPEG: {error}; use `format` raw"
            ) from error
        return file.getvalue()


def downscaled(source: ImageDataset, index: int, short_side: int) -> npt.NDArray[np.uint8]:
    """An image, no larger than that: uint8 (height, width, 3). Raises CorruptImage and OSError."""
    image = persistently(partial(source.read, index), partial(name_or_number, source, index))
    height, width = image.shape[-2:]
    if min(height, width) > short_side:
        image = resize(image, with_short_side(height, width, short_side))
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


# -- files --------------------------------------------------------------------------------------------------------


class SplitWriter:
    """Appends images to the files of a split, from where they are whole. Raises UserError where what is there is of
    other images, else OSError."""

    def __init__(self, folder: Path, split: str) -> None:
        self._pixels_path, self._index_path = folder / f"{split}.pixels", folder / f"{split}.index"
        self._pixels, self._index = (open_to_append(path) for path in (self._pixels_path, self._index_path))
        self.end = 0
        self._waiting: list[Records] = []
        self._unsynced = 0

    def write(self, images: PackedImages) -> Iterator[int]:
        """Write the images that are missing; yields how many are there."""
        count = self._resume(images.source)
        yield count
        for chunk in images.from_index(count):
            self._add(chunk)
            count += len(chunk)
            yield count
        self._sync()

    def about(self, split: PackedSplit) -> PackedSplit:
        """The same with what is known when all are written."""
        index = read_bytes(self._index_path, MAX_INDEX)
        corrupt = int((np.frombuffer(index, RECORD)["height"] == 0).sum())
        return split.model_copy(update={"size": self.end, "corrupt": corrupt, "index": digest(index)})

    def _resume(self, source: ImageDataset) -> int:
        """How many images are there already; what is behind them is cut off."""
        whole = os.fstat(self._index).st_size // RECORD.itemsize
        records = np.fromfile(self._index_path, RECORD, whole)
        file = PixelFile(self._pixels_path)
        count = num_whole(file, records)
        for index in range(max(0, count - CHUNK), count):
            if (name := name_of(file, records[index])) != source.describe(index):
                raise UserError(
                    f"{self._pixels_path}: image {index} is {name}, in the data set it is "
                    f"{source.describe(index)}; {AGAIN}"
                )
        self.end = int(ends(records[:count])[-1]) if count else 0
        os.ftruncate(self._index, count * RECORD.itemsize)
        os.ftruncate(self._pixels, self.end)
        return count

    def _add(self, chunk: Iterable[PackedImage]) -> None:
        content, records = [], []
        for image in chunk:
            if not image.height:
                log.warning("corrupt image %s: %s", os.fsdecode(image.name), image.content.decode(errors="replace"))
            stored = image.content + image.name
            sizes = (len(image.content), len(image.name), image.height, image.width)
            records.append((self.end, *sizes, image.label, zlib.crc32(stored)))
            content.append(stored)
            self.end += len(stored)
            self._unsynced += len(stored)
        _write(self._pixels, b"".join(content))
        self._waiting.append(np.array(records, RECORD))
        if self._unsynced >= SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        """Wait for the disk, then write the index: it names only images that outlive a power cut."""
        os.fsync(self._pixels)
        _write(self._index, b"".join(records.tobytes() for records in self._waiting))
        os.fsync(self._index)
        self._waiting.clear()
        self._unsynced = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._pixels)
        os.close(self._index)


def num_whole(file: PixelFile, records: Records) -> int:
    """How many images, from the first on, are all there. Those since the last sync are read:
    not every disk keeps what it has acknowledged."""
    end = ends(records)
    count = int(np.searchsorted(end, file.size, side="right"))
    if not count:
        return 0
    start = int(np.searchsorted(end, max(0, int(end[count - 1]) - SYNC_EVERY)))
    bad = next(corrupt_records(file, records[start:count]), None)
    return count if bad is None else start + bad


def open_to_append(path: Path) -> int:
    """A descriptor. Raises OSError, also where a link leads elsewhere, or it is no regular file."""
    return open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, follow_links=False)


def _write(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
