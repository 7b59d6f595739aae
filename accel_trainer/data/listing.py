"""What a data set consists of, known without reading its images: for each a name within its class, and a mark of its
content."""

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from accel_trainer.core.files import MEBIBYTE, open_regular
from accel_trainer.core.outage import persistently

Numbers = npt.NDArray[np.int64]

# A disk of the network answers many questions at once.
THREADS, CHUNK = 16, 1000
MISSING = -1


@runtime_checkable
class Listed(Protocol):
    """A data set that has a list of its images."""

    def names(self, indices: Numbers) -> list[str]:
        """Names of these images, each within its class, which do not depend on where the data set is."""
        ...

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """For each of these images a number that another content would hardly have: bytes of a file, a checksum.

        This may take long: a question to the disk for each file. Raises Canceled.
        """
        ...


@runtime_checkable
class Stamped(Protocol):
    """A data set that can tell whether its images may have been replaced by others of the same names and marks."""

    def stamps(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """For each of these images a number that changes when its file is written. It is another one for a copy. Raises
        Canceled."""
        ...


@runtime_checkable
class MarkedOtherwise(Protocol):
    """A data set whose marks were others in earlier versions."""

    def earlier_marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Those that runs of earlier versions have recorded."""
        ...


class Labeled(Protocol):
    """What can be listed by class."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels."""
        ...

    @property
    def labels(self) -> Numbers:
        """int64 of shape (n,), each in 0..len(classes)-1."""
        ...


class Input(Labeled, Listed, Protocol):
    """What a training reads beside images, listed as those are."""

    @property
    def known_marks(self) -> Sequence[int]:
        """Those of its marks that every process knows without reading anything more."""
        ...


class Canceled(Exception):
    """Nobody wants the answer anymore."""


def file_sizes(paths: Sequence[str], is_canceled: Callable[[], bool]) -> Numbers:
    """Bytes of each file, MISSING where there is none: int64 (n,). Raises Canceled."""
    return _of_each_file(paths, lambda about: about.st_size, is_canceled)


def file_stamps(paths: Sequence[str], is_canceled: Callable[[], bool]) -> Numbers:
    """For each file a number that changes when it is written, also where it is given the time of before; MISSING where
    there is none: int64 (n,). Raises Canceled."""
    return _of_each_file(paths, lambda about: (about.st_mtime_ns * 1_000_003 + about.st_ctime_ns) % 2**63, is_canceled)


def _of_each_file(
    paths: Sequence[str], number: Callable[[os.stat_result], int], is_canceled: Callable[[], bool]
) -> Numbers:
    def numbers(start: int) -> list[int]:
        if is_canceled():
            raise Canceled
        return [_number_of(path, number) for path in paths[start : start + CHUNK]]

    with ThreadPoolExecutor(THREADS, "sizes") as pool:
        found = [one for part in pool.map(numbers, range(0, len(paths), CHUNK)) for one in part]
    return np.array(found, dtype=np.int64)


def _number_of(path: str, number: Callable[[os.stat_result], int]) -> int:
    try:
        return number(persistently(partial(os.stat, path), lambda: path, may_be_missing=True))
    except FileNotFoundError:
        return MISSING


def file_checksum(path: Path, is_canceled: Callable[[], bool]) -> int:
    """CRC-32 of all bytes of a file. Raises Canceled, and OSError."""

    def read() -> int:
        checksum = 0
        with os.fdopen(open_regular(path), "rb", buffering=0) as file:
            while content := file.read(MEBIBYTE):
                if is_canceled():
                    raise Canceled
                checksum = zlib.crc32(content, checksum)
        return checksum

    return persistently(read, lambda: str(path))
