"""Files that stay open and are read anywhere, by any number of threads, without being mapped into memory."""

import errno
import os
import stat
import threading
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accel_trainer.core.files import open_regular
from accel_trainer.core.outage import persistently


class RandomAccessFile:
    """A file that is read at any place by any number of threads.

    It is read, not mapped: a file that a disk cannot give, or that is truncated meanwhile, is then an error and not a
    signal that kills the training, and its pages do not count as memory of the process.
    num_openings: how often it was opened, which is more than once where a disk was away; has_failed: whether the next
    `read` opens it again; descriptor: of the open file, the same all the time.
    Raises OSError; UnsuitableFile where it is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = persistently(partial(open_regular, path), lambda: str(path), may_be_missing=True)
        weakref.finalize(self, os.close, self.descriptor).atexit = False
        about = os.fstat(self.descriptor)
        self.size, self._changed_ns = about.st_size, about.st_mtime_ns
        self.num_openings = 1
        self.has_failed = False
        self._opening = threading.Lock()

    def read(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        """uint8 of shape (size,), without holding the interpreter's lock. Raises OSError."""
        content = np.empty(size, dtype=np.uint8)
        done = 0
        if self.has_failed:
            self._open_again()
        try:
            while done < size:
                count = os.preadv(self.descriptor, [content.data[done:]], offset + done)
                if count == 0:
                    raise OSError(errno.EIO, "the file has become shorter")
                done += count
        except OSError as error:
            self.has_failed = True
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return content

    def _open_again(self) -> None:
        """A disk that was away may know an open file no more. Another file in its place counts as an error."""
        with self._opening:
            if not self.has_failed:
                return
            file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                about = os.fstat(file)
                is_same = about.st_size == self.size and about.st_mtime_ns == self._changed_ns
                if not stat.S_ISREG(about.st_mode) or not is_same:
                    raise OSError(errno.ESTALE, "another file has taken its place", str(self.path))
                os.dup2(file, self.descriptor, inheritable=False)  # other threads may be reading
            finally:
                os.close(file)
            self.num_openings += 1
            self.has_failed = False
