"""Checksums of image files as a run has first read them: another image by the same name is noticed when it is read."""

import logging
import zlib
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from accel_trainer.core.errors import UserError

log = logging.getLogger(__name__)

UNREAD = 0
MAX_NAMED = 20


class Contents:
    """What the images of a source were when they were first read.

    checksums: CRC-32 of the bytes of each file, uint32 (n,), UNREAD where it was not read yet. is_new: bool (n,), which
    of them were found since that was last cleared. Threads may note images at once.
    """

    def __init__(self, num_images: int, *, accepts_changes: bool) -> None:
        self.checksums: npt.NDArray[np.uint32] = np.full(num_images, UNREAD, np.uint32)
        self.is_new: npt.NDArray[np.bool_] = np.zeros(num_images, np.bool_)
        self._accepts_changes = accepts_changes
        self._num_changed = 0

    def note(self, index: int, content: bytes, name: str) -> None:
        """Compare an image that was read whole with what it was. Raises UserError for another one, if that is not
        accepted."""
        checksum = zlib.crc32(content) or 1
        before = self.checksums[index]
        if before == checksum:
            return
        if before != UNREAD:
            self._changed(name)
        self.checksums[index] = checksum
        self.is_new[index] = True

    def _changed(self, name: str) -> None:
        if not self._accepts_changes:
            raise UserError(
                f"{name} is another image than the run has read before, by the same name",
                key="dataset",
                hint="restore it, set checkpoint to -1 to start over (the old run is kept in previous/), or "
                "allow_changes to true to go on with what is there now",
            )
        self._num_changed += 1
        if self._num_changed <= MAX_NAMED:
            log.warning("%s is another image than before; going on with it", name)


@runtime_checkable
class HasContents(Protocol):
    """A source of image files that compares them with what they were, once it is given `contents`."""

    contents: Contents | None

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """One for each image."""
        ...
