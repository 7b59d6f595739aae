"""Representational dissimilarity matrices on disks: those of rsatoolbox (HDF5), NumPy's arrays, and CSV."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, read_text
from accel_trainer.core.text import first_line, listed
from accel_trainer.representations.dissimilarity import num_pairs
from accel_trainer.representations.rows import Floats

RDMS = "rdms.h5"
HDF5, TABLES = (".h5", ".hdf5"), (".csv", ".tsv")
SUFFIXES = (".npy", *TABLES, *HDF5)
MAX_CSV_BYTES = 1024 * MEBIBYTE
# The columns of an RDM and of a condition in files of rsatoolbox, as we write them.
LAYER, CYCLE, CONDITION = "layer", "cycle", "condition"


@dataclass(frozen=True)
class Rdms:
    """r matrices of the same conditions. vectors: (r, pairs) float64, in the order of `pdist`; conditions: their names,
    or () where they are not known; layers, cycles: of each matrix, "" and None where there is none."""

    vectors: Floats
    conditions: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    cycles: tuple[int | None, ...] = ()
    distance: str = ""
    num_conditions: int = field(init=False)

    def __post_init__(self) -> None:
        """Raises UserError where the number of pairs is that of no matrix, or of another number of conditions."""
        pairs = self.vectors.shape[1]
        number = round((1 + np.sqrt(1 + 8 * pairs)) / 2)
        if num_pairs(number) != pairs or number < 2:
            raise UserError(f"{pairs} dissimilarities are the pairs of no number of conditions")
        if self.conditions and len(self.conditions) != number:
            raise UserError(f"{len(self.conditions)} names for {number} conditions")
        object.__setattr__(self, "num_conditions", number)

    def in_order_of(self, conditions: Sequence[str]) -> "Rdms":
        """The same, with conditions in this order, where their names are known. Raises UserError for other names."""
        if not self.conditions or not conditions or tuple(conditions) == self.conditions:
            return self
        if len(set(conditions)) < len(conditions) or set(conditions) != set(self.conditions):
            differ = sorted(set(conditions) ^ set(self.conditions)) or ["some are there twice"]
            raise UserError(f"conditions are not the same: {listed(differ, 4)}")
        places = {name: place for place, name in enumerate(self.conditions)}
        order = np.array([places[name] for name in conditions])
        first, second = np.triu_indices(len(order), 1)
        vectors = self.vectors[:, pair_index(order[first], order[second], len(order))]
        return Rdms(vectors, tuple(conditions), self.layers, self.cycles, self.distance)


def pair_index(first: NDArray[Any], second: NDArray[Any], num: int) -> NDArray[Any]:
    """Where the dissimilarity of two different conditions of `num` is in a vector."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    found: NDArray[Any] = low * num - low * (low + 1) // 2 + high - low - 1
    return found


# -- writing ----------------------------------------------------------------------------------------------------------

Add = Callable[[Floats], None]


@contextmanager
def writing_rdms(
    path: Path, conditions: Sequence[str], layers: Sequence[tuple[str, int | None]], distance: str
) -> Iterator[Callable[[Floats], None]]:
    """Makes a file for `rsatoolbox.rdm.load_rdm`, and gives a function that takes pieces of the vectors of all layers,
    one after the other. The descriptor of conditions is `condition`, those of matrices are `layer` and `cycle` (-1 for
    none). Raises OSError; UserError where HDF5 says no more than that."""
    import h5py

    pairs = num_pairs(len(conditions))
    try:
        with h5py.File(path, "w") as file:
            values = file.create_dataset("dissimilarities", (len(layers), pairs), np.float64)
            file.attrs["dissimilarity_measure"] = distance
            file.create_group("descriptors")
            of_rdm, of_condition = file.create_group("rdm_descriptors"), file.create_group("pattern_descriptors")
            of_rdm[LAYER] = _ascii(layer for layer, _ in layers)
            of_rdm[CYCLE] = np.array([-1 if cycle is None else cycle for _, cycle in layers], np.int64)
            of_rdm["index"] = np.arange(len(layers))
            of_condition[CONDITION] = _ascii(conditions)
            of_condition["index"] = np.arange(len(conditions))
            start = 0

            def add(piece: Floats) -> None:
                nonlocal start
                row, place = divmod(start, pairs)
                values[row, place : place + len(piece)] = piece
                start += len(piece)

            yield add
    except OSError as error:
        if error.errno is None:
            raise UserError(f"cannot be written: {first_line(error)}", where=path) from error
        raise OSError(error.errno, os.strerror(error.errno), error.filename or str(path)) from error
    except RuntimeError as error:  # as h5py has it, where a file cannot be closed
        raise UserError(f"cannot be written: {first_line(error)}", where=path) from error


def _ascii(names: Iterable[str]) -> NDArray[np.bytes_]:
    """rsatoolbox reads no other characters; those are as Python's "\\xe9" has them."""
    return np.array([name.encode("ascii", "backslashreplace") for name in names])


def as_csv(vector: Floats, conditions: Sequence[str]) -> Iterator[str]:
    """Lines of a square table with the names of the conditions above and at the left."""
    num = len(conditions)
    yield _line(["", *conditions])
    others = np.arange(num)
    for place, name in enumerate(conditions):
        row = np.zeros(num)
        is_other = others != place
        row[is_other] = vector[pair_index(np.full(num - 1, place), others[is_other], num)]
        yield _line([name, *row.tolist()])


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


# -- reading ----------------------------------------------------------------------------------------------------------


def read_rdms(path: Path) -> Rdms:
    """Matrices of a file: .npy (a square, a vector, or several of one of them), .csv (a square, with names or without),
    .h5 of rsatoolbox; or of a folder that `accel-train rdm` has written. A diagonal is left out. Raises UserError for
    anything else, also for matrices that are not symmetric; OSError."""
    try:
        if path.is_dir():
            return _of_hdf5(path / RDMS)
        if path.suffix in HDF5:
            return _of_hdf5(path)
        if path.suffix == ".npy":
            return Rdms(_vectors(_loaded(path)))
        if path.suffix in TABLES:
            return _of_table(read_text(path, MAX_CSV_BYTES), "\t" if path.suffix == ".tsv" else ",")
    except UserError as error:
        raise error.at(path) from error
    hint = "save it as HDF5: a pickle may run any program" if path.suffix in (".pkl", ".pickle") else None
    raise UserError("is no .npy, .csv, .h5 or folder of matrices", where=path, hint=hint)


def _loaded(path: Path) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"is no array of numbers: {first_line(error)}") from error
    return values


def _vectors(values: NDArray[Any]) -> Floats:
    """(r, pairs) of (pairs,), (n, n), (r, pairs) or (r, n, n)."""
    if values.dtype.kind not in "fiub":
        raise UserError(f"has no numbers but {values.dtype}")
    given: Floats = values.astype(np.float64)
    is_square = given.ndim >= 2 and given.shape[-1] == given.shape[-2]
    if is_square:
        squares = given.reshape(-1, *given.shape[-2:])
        if not np.allclose(squares, squares.transpose(0, 2, 1), rtol=1e-6, atol=1e-9, equal_nan=True):
            raise UserError("a matrix is not symmetric")
        return squares[:, *np.triu_indices(squares.shape[1], 1)]
    if given.ndim not in (1, 2):
        raise UserError(f"an array of shape {given.shape} is no matrix of dissimilarities")
    return given.reshape(-1, given.shape[-1])


def _of_table(text: str, delimiter: str) -> Rdms:
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    names: tuple[str, ...] = ()
    if rows and not _is_number(rows[0][-1]):
        header, rows = rows[0], rows[1:]
        names = tuple(header[-len(rows) :])
        if len(header) == len(rows) + 1 or (rows and len(rows[0]) == len(rows) + 1):
            if tuple(row[0] for row in rows) != names:
                raise UserError("its rows have not the names of its columns")
            rows = [row[1:] for row in rows]
    try:
        values = np.array([[float(cell) for cell in row] for row in rows])
    except ValueError as error:
        raise UserError(f"is no table of numbers: {first_line(error)}") from error
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise UserError(f"is no square table: {values.shape}")
    return Rdms(_vectors(values), names)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _of_hdf5(path: Path) -> Rdms:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            vectors = _vectors(np.asarray(file["dissimilarities"]))
            of_rdm, of_condition = (_descriptors(file, f"{kind}_descriptors") for kind in ("rdm", "pattern"))
            distance = file.attrs.get("dissimilarity_measure", "")
    except (OSError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(f"is no HDF5 file of rsatoolbox: {first_line(error)}") from error
    number = len(vectors)
    layers = tuple(map(str, of_rdm.get(LAYER, [""] * number)))
    cycles = tuple(None if int(cycle) < 0 else int(cycle) for cycle in of_rdm.get(CYCLE, [-1] * number))
    return Rdms(vectors, _names(of_condition), layers, cycles, distance if isinstance(distance, str) else "")


def _descriptors(file: Any, group: str) -> dict[str, list[Any]]:
    """Texts and numbers, as rsatoolbox has them."""
    there: Mapping[str, Any] = file.get(group, {})
    found = dict[str, list[Any]]()
    for name, values in there.items():
        if hasattr(values, "keys"):  # a list of texts of different kinds
            found[name] = [_text(values[str(place)][()]) for place in range(len(values))]
        elif values.shape:
            found[name] = [_text(value) for value in values[()].tolist()]
    return found


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _names(descriptors: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Of the conditions: the descriptor `condition`, or the only one of texts that are all different."""
    if CONDITION in descriptors:
        return tuple(map(str, descriptors[CONDITION]))
    texts = [
        tuple(values)
        for values in descriptors.values()
        if all(isinstance(value, str) for value in values) and len(set(values)) == len(values)
    ]
    return texts[0] if len(texts) == 1 else ()
