"""Answers on the disk while an evaluation is not complete: files of their whole size from the beginning, in which each
process writes the rows of its batches, and what of them is done.

What is written at a place does not depend on who writes it, nor on when: an evaluation that was ended anywhere is gone
on with by any number of processes.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from accel_trainer.core.errors import UserError
from accel_trainer.core.machine_errors import told
from accel_trainer.evaluation.answers import AnswerKind, Records
from accel_trainer.evaluation.degraded_batches import DIGEST_BYTES, Digests
from accel_trainer.evaluation.rows_on_disk import CORRUPT, DONE, FLUSH_EVERY_S, write_all

ANSWERS, DIGESTS, PROGRESS = "answers", "digests", "progress"
States = npt.NDArray[np.uint8]


@dataclass
class AnswerFiles:
    """A folder with `answers` (conditions, images, cycles) of a record each, `digests` (conditions, images,
    DIGEST_BYTES) of the pixels that were shown, and `progress` (conditions, images), a byte each."""

    folder: Path
    num_conditions: int
    num_images: int
    kind: AnswerKind
    _open: dict[str, int] = field(default_factory=dict)
    _resources: ExitStack = field(default_factory=ExitStack)
    _waiting: list[tuple[int, bytes]] = field(default_factory=list)
    _flushed: float = 0.0

    @property
    def _row_bytes(self) -> int:
        """Of an image."""
        return self.kind.num_cycles * self.kind.dtype.itemsize

    def prepare(self) -> None:
        """Make the files that are not there, with room for everything. Raises UserError where the disk has none."""
        places = self.num_conditions * self.num_images
        with errors_named(self.folder):
            self.folder.mkdir(exist_ok=True)
            if (self.folder / PROGRESS).exists():  # which is made last
                return
            for name, size in ((ANSWERS, self._row_bytes), (DIGESTS, DIGEST_BYTES), (PROGRESS, 1)):
                aside = self.folder / f"{name}.new"
                _allocate(aside, places * size)
                aside.replace(self.folder / name)

    def states(self) -> States:
        """For each condition and image TODO, DONE or CORRUPT."""
        content = np.fromfile(self.folder / PROGRESS, np.uint8)
        return content.reshape(self.num_conditions, self.num_images)

    def __enter__(self) -> Self:
        self._flushed = time.monotonic()
        with errors_named(self.folder):
            for name in (ANSWERS, DIGESTS, PROGRESS):
                self._open[name] = os.open(self.folder / name, os.O_WRONLY | os.O_CLOEXEC)
                self._resources.callback(os.close, self._open[name])
        return self

    def write(
        self, condition: int, start: int, records: Records, digests: Digests, is_corrupt: npt.NDArray[np.bool_]
    ) -> bool:
        """The rows of some images under a condition, from one on: (n, cycles), (n, DIGEST_BYTES), (n,). Whether all
        that was written is now known to be on the disk. Raises UserError where the disk does not take it."""
        place = condition * self.num_images + start
        with errors_named(self.folder):
            write_all(self._open[ANSWERS], records.tobytes(), place * self._row_bytes)
            write_all(self._open[DIGESTS], digests.tobytes(), place * DIGEST_BYTES)
        self._waiting.append((place, np.where(is_corrupt, CORRUPT, DONE).astype(np.uint8).tobytes()))
        if time.monotonic() - self._flushed < FLUSH_EVERY_S:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """What was written is on the disk, and then it is noted that it was. Raises UserError as `write`."""
        with errors_named(self.folder):
            for name in (ANSWERS, DIGESTS):
                os.fdatasync(self._open[name])
            for place, states in self._waiting:
                write_all(self._open[PROGRESS], states, place)
            os.fdatasync(self._open[PROGRESS])
        self._waiting.clear()
        self._flushed = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()
        self._open.clear()

    # -- reading, when all is done --------------------------------------------------------------------------------

    def records(self, condition: int, start: int, count: int) -> Records:
        """Of some images, (count, cycles)."""
        place = (condition * self.num_images + start) * self._row_bytes
        cycles = self.kind.num_cycles
        found = np.fromfile(self.folder / ANSWERS, self.kind.dtype, count * cycles, offset=place)
        return found.reshape(count, cycles)

    def digests(self, condition: int) -> Digests:
        """(images, DIGEST_BYTES) of what was shown."""
        size = self.num_images * DIGEST_BYTES
        found = np.fromfile(self.folder / DIGESTS, np.uint8, size, offset=condition * size)
        return found.reshape(self.num_images, DIGEST_BYTES)


@contextmanager
def errors_named(folder: Path) -> Iterator[None]:
    """An error of the disk becomes a line that names the path. Raises UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(told(error), where=error.filename or folder) from error


def _allocate(file: Path, size: int) -> None:
    with file.open("wb") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                file.unlink()
                raise UserError(
                    f"no room for {size / 1e6:,.1f} MB of answers: {told(error)}",
                    where=file.parent,
                    hint="fewer `probabilities` need less, such as 5",
                ) from error
            opened.truncate(size)
        os.fsync(opened.fileno())
