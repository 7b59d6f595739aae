"""Features by rows: arrays, and what is read or computed of them when it is asked for, so that memory stays small."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError

Floats = NDArray[np.float64]
# Of what is in memory at once of rows that are averaged.
PIECE_BYTES = 32 * 2**20


class Rows(Protocol):
    """Rows of numbers, (n, values): an array, or what gives one for a slice."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, values)."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Those rows, as an array."""


@dataclass(frozen=True)
class FileRows:
    """Rows in a file, one after the other from a byte on; further dimensions are flattened."""

    path: Path
    start: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Raises UserError where the file is too short, OSError."""
        first, last, _ = rows.indices(self.shape[0])
        count = max(0, last - first) * self.shape[1]
        place = self.start + first * self.shape[1] * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, count, offset=place)
        if len(values) < count:
            raise UserError("is damaged: it ends before its last row", where=self.path)
        return values.reshape(-1, self.shape[1])


@dataclass(frozen=True)
class Chosen:
    """Some of the rows. indices: ascending."""

    rows: Rows
    indices: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(chosen rows, values)."""
        return len(self.indices), self.rows.shape[1]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """These of them."""
        found = list(pieces(self.rows, self.indices[rows]))
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)


@dataclass(frozen=True)
class Means:
    """Means over some rows each, float64: of the images of a condition. members: for each mean, indices of its rows."""

    rows: Rows
    members: Sequence[NDArray[np.int64]]

    @property
    def shape(self) -> tuple[int, int]:
        """(means, values)."""
        return len(self.members), self.rows.shape[1]

    def __getitem__(self, rows: slice) -> Floats:
        """The means of these."""
        chosen = self.members[rows]
        found = np.zeros((len(chosen), self.rows.shape[1]))
        for place, indices in enumerate(chosen):
            for piece in pieces(self.rows, indices):
                found[place] += piece.sum(0, dtype=np.float64)
            found[place] /= len(indices)
        return found


@dataclass(frozen=True)
class Sums:
    """Sums of the same rows of several, float64."""

    parts: Sequence[Rows]

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, values)."""
        return self.parts[0].shape

    def __getitem__(self, rows: slice) -> Floats:
        """The sums of these."""
        total: Floats = np.array(self.parts[0][rows], np.float64)
        for part in self.parts[1:]:
            total += part[rows]
        return total


def pieces(rows: Rows, indices: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """Rows of these ascending indices, those that follow each other in one piece of limited size."""
    most = max(1, PIECE_BYTES // max(1, 8 * rows.shape[1]))
    for run in np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1):
        for start in range(0, len(run), most):
            part = run[start : start + most]
            yield rows[int(part[0]) : int(part[-1]) + 1]
