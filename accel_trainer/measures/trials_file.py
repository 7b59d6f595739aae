"""Tables of trials as Parquet files, written and read in parts, so that memory does not grow with them.

A column of a file is that of `Trials` of the same name, or a condition. What the columns do not say is in the metadata
`accel_train_trials`: which are conditions, and the classes.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import replacing
from accel_trainer.core.text import listed
from accel_trainer.measures.factor import Factor
from accel_trainer.measures.trials import COLUMNS, Trials

METADATA = b"accel_train_trials"
VERSION = 1
# Of a row group: as many rows as fit into these bytes, between these numbers.
GROUP_BYTES, FEWEST_ROWS, MOST_ROWS = 32 * 2**20, 1024, 65536
# Without probabilities.
ROW_BYTES = 64
WORDS = ("image", "true_class", "response", "observer", "layer")
NUMBERS = ("correct", "cycle", "entropy", "seconds")
LISTS = ("probabilities", "top_classes")
TYPES = {"correct": np.bool_, "cycle": np.int32, "entropy": np.float32, "seconds": np.float64} | {
    "probabilities": np.float32,
    "top_classes": np.int32,
}


@contextmanager
def writing_trials(path: Path) -> Iterator[Callable[[Trials], None]]:
    """Gives a function that adds trials to a new file, which appears whole when the context ends without an error.

    All parts have the same columns, conditions and classes; the function raises UserError otherwise. Parts of any size
    are put together to row groups of 32 MB at most. Raises OSError.
    """
    import pyarrow.parquet as pq

    with replacing(path, durable=True) as aside:
        waiting = _Waiting()
        writer = None
        try:

            def write(trials: Trials | None) -> None:
                nonlocal writer
                if trials is None:
                    return
                if writer is None:
                    writer = pq.ParquetWriter(aside, _table(trials).schema, compression="zstd")
                writer.write_table(_table(trials), row_group_size=MOST_ROWS)

            def add(trials: Trials) -> None:
                write(waiting.add(trials))

            yield add
            write(waiting.take())
            if writer is None:
                raise UserError(f"{path}: no trials to write")
        finally:
            if writer is not None:
                writer.close()


class _Waiting:
    """Parts that are no row group yet."""

    def __init__(self) -> None:
        self.parts = list[Trials]()
        self.rows = 0
        self.kind: Any = None

    def add(self, trials: Trials) -> Trials | None:
        """A row group, where there are enough rows."""
        kind = _kind(trials)
        self.kind = self.kind or kind
        if kind != self.kind:
            raise UserError("trials of one file have the same columns, conditions and classes")
        self.parts.append(trials)
        self.rows += len(trials)
        width = 0 if trials.probabilities is None else trials.probabilities.shape[1]
        bytes_of_row = ROW_BYTES + width * (4 if trials.top_classes is None else 8)
        return self.take() if self.rows >= min(max(GROUP_BYTES // bytes_of_row, FEWEST_ROWS), MOST_ROWS) else None

    def take(self) -> Trials | None:
        """All rows, which wait no more."""
        parts, self.parts, self.rows = self.parts, [], 0
        return Trials.joined(parts) if parts else None


def _kind(trials: Trials) -> Any:
    width = None if trials.probabilities is None else trials.probabilities.shape[1]
    columns = [name for name in sorted(COLUMNS) if getattr(trials, name) is not None]
    return columns, list(trials.conditions), trials.classes, width


def _table(trials: Trials) -> Any:
    import pyarrow as pa

    columns = dict[str, Any]()
    for name in WORDS:
        if (column := getattr(trials, name)) is not None:
            columns[name] = _words(column)
    columns |= {name: _words(column) for name, column in trials.conditions.items()}
    for name in NUMBERS:
        if (values := getattr(trials, name)) is not None:
            columns[name] = pa.array(np.ascontiguousarray(values, TYPES[name]))
    for name in LISTS:
        if (values := getattr(trials, name)) is not None:
            flat = pa.array(np.ascontiguousarray(values, TYPES[name]).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    about = {"version": VERSION, "conditions": list(trials.conditions), "classes": list(trials.classes)}
    return pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about).encode()})


def _words(column: Factor) -> Any:
    """Of the levels only those that some row has."""
    import pyarrow as pa

    found, codes = np.unique(column.codes, return_inverse=True)
    levels = pa.array([column.levels[code] for code in found.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.reshape(-1).astype(np.int32)), levels)


def is_trials_file(path: Path) -> bool:
    """A Parquet file that `writing_trials` made. Raises UserError for one that cannot be read, OSError."""
    return METADATA in (open_parquet(path).schema_arrow.metadata or {})


def open_parquet(path: Path) -> Any:
    """The file, of which nothing but its description is read. Raises UserError where it is none, OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowException as error:
        raise UserError(f"no Parquet file: {str(error).splitlines()[0]}", where=path) from error


def trial_blocks(path: Path, *, probabilities: bool = True) -> Iterator[Trials]:
    """The trials of a file in parts, in their order; without probabilities these are not read from the disk.

    Raises UserError for a file of something else, or a damaged one; OSError.
    """
    import pyarrow as pa

    file = open_parquet(path)
    conditions, classes = _about(path, file.schema_arrow.metadata or {})
    names = [name for name in file.schema_arrow.names if probabilities or name not in LISTS]
    if missing := [name for name in (*WORDS[:4], "correct", *conditions) if name not in names]:
        raise UserError(f"a table of trials without {listed(missing)}", where=path)
    try:
        for batch in file.iter_batches(_batch_rows(file), columns=names, use_threads=False):
            yield _trials(batch, conditions, classes)
    except pa.ArrowException as error:
        raise UserError(f"damaged: {str(error).splitlines()[0]}", where=path) from error
    except UserError as error:
        raise error.at(path) from error


def read_trials(path: Path, *, probabilities: bool = True) -> Trials:
    """All trials of a file. Raises as `trial_blocks`."""
    return Trials.joined(trial_blocks(path, probabilities=probabilities))


def _batch_rows(file: Any) -> int:
    """No part is larger than the row groups that are written here, whoever has written the file."""
    groups = file.metadata.num_row_groups
    rows = [file.metadata.row_group(group).num_rows for group in range(groups)]
    return min(max(rows, default=1) or 1, MOST_ROWS)


def _about(path: Path, metadata: Any) -> tuple[list[str], tuple[str, ...]]:
    """The names of the conditions, and the classes."""
    if METADATA not in metadata:
        raise UserError("a Parquet file, but no table of trials", where=path)
    try:
        about = json.loads(metadata[METADATA])
        version, found = about["version"], [about["conditions"], about["classes"]]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError("its description of trials is damaged", where=path) from error
    if version != VERSION:
        raise UserError(f"trials of version {version!r}; this accel-train reads version {VERSION}", where=path)
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in found):
        raise UserError("its description of trials is damaged", where=path)
    conditions, classes = cast(list[list[str]], found)
    return conditions, tuple(classes)


def _trials(batch: Any, conditions: list[str], classes: tuple[str, ...]) -> Trials:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    _refuse_other_types({name: column.type for name, column in columns.items()})
    found = dict[str, Any]()
    for name, column in columns.items():
        if column.null_count or (name in LISTS and column.flatten().null_count):
            raise UserError(f"column {name} has rows without a value")
        if name in WORDS or name in conditions:
            found[name] = _factor(name, column)
        elif name in NUMBERS:
            found[name] = column.to_numpy(zero_copy_only=False)
        elif name in LISTS:
            found[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    of_conditions = {name: found.pop(name) for name in conditions}
    return Trials(conditions=of_conditions, classes=classes, **found)


def _refuse_other_types(types: dict[str, Any]) -> None:
    import pyarrow as pa

    for name, found in types.items():
        if name in LISTS and not pa.types.is_fixed_size_list(found):
            raise UserError(f"column {name} is {found}, no lists of one length")
        number = found.value_type if name in LISTS else found
        if name in TYPES and number != pa.from_numpy_dtype(TYPES[name]):
            raise UserError(f"column {name} is of {number}, not of {np.dtype(TYPES[name])}")


def _factor(name: str, column: Any) -> Factor:
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if not pa.types.is_string(column.type.value_type):
        raise UserError(f"column {name} is no text")
    given = Factor.of(column.dictionary.to_pylist())
    return Factor(given.codes[column.indices.to_numpy(zero_copy_only=False)], given.levels)
