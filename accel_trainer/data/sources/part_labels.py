"""Whether the files of one split mean the same by their labels.

The library gives all files the types of the first, without a word: true becomes 1, the name "1" the number 1, and a
number that of a class which only the first file declares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_trainer.config.dataset_names import HF
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed

LABEL_NAMES = ("label", "labels", "class", "target")
_NOTHING = "null"


@dataclass(frozen=True)
class _Meaning:
    """What the values of a column are. names: those of a ClassLabel, in its order."""

    kind: str
    names: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.kind if self.names is None else f"a ClassLabel of {listed(self.names, 4)}"


def check_alike(paths: Sequence[Path], dataset: str, label_column: str | None) -> None:
    """Refuse files of parquet or arrow that would be one table, and in which labels are other things, or have other
    names behind their numbers.

    label_column: where the labels are; without it every ClassLabel, and every column with a name for labels, is
    compared. Raises UserError.
    """
    first: dict[str, tuple[Path, _Meaning]] = {}
    tables = [(path, _meanings(path)) for path in paths]
    declared = {column for _, meanings in tables for column, one in meanings.items() if one.names is not None}
    compared = declared | set(LABEL_NAMES if label_column is None else (label_column,))
    for path, meanings in tables:
        for column, meaning in meanings.items():
            if column not in compared or meaning.kind == _NOTHING:
                continue
            where, known = first.setdefault(column, (path, meaning))
            if not _is_read_rightly(known, meaning):
                raise _unlike(where, known, path, meaning, column, dataset)


def _is_read_rightly(first: _Meaning, other: _Meaning) -> bool:
    """Whether the library reads the other as it is meant: names are looked up in the ClassLabel of a file before."""
    return first == other or (first.names is not None and other == _Meaning("names"))


def _unlike(where: Path, known: _Meaning, path: Path, meaning: _Meaning, column: str, dataset: str) -> UserError:
    files = f"'{HF}{dataset}': {where.name} and {path.name} have other"
    if known.names is not None and meaning.names is not None:
        names = f"{listed(known.names, 4)}, and {listed(meaning.names, 4)}"
        return UserError(f"{files} names for the numbers of the column {column!r}: {names}", key="dataset")
    return UserError(
        f"{files} kinds of values in the column {column!r}: {known}, and {meaning}",
        key="dataset",
        hint="they are parts of one table: store all alike, as a ClassLabel",
    )


def _meanings(path: Path) -> dict[str, _Meaning]:
    """Of each column of a file."""
    import datasets

    schema = schema_of(path)
    features = datasets.Features.from_arrow_schema(schema)
    return {column: _meaning(schema.field(column).type, feature) for column, feature in features.items()}


def _meaning(kind: Any, feature: Any) -> _Meaning:
    import datasets
    from pyarrow import types

    if isinstance(feature, datasets.ClassLabel):
        return _Meaning("ClassLabel", tuple(feature.names))
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_integer(kind):
        return _Meaning("integers")
    if types.is_floating(kind) or types.is_decimal(kind):
        return _Meaning("fractions")
    if types.is_boolean(kind):
        return _Meaning("true or false")
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _Meaning("names")
    return _Meaning(str(kind))


def schema_of(path: Path) -> Any:
    """The arrow schema of a file of parquet or arrow."""
    from pyarrow import parquet

    if path.suffix.lower() == ".parquet":
        return parquet.read_schema(path)
    with arrow_reader(path) as reader:
        return reader.schema


def arrow_reader(path: Path) -> Any:
    """The batches of an arrow file, as a stream or as a file of its own format."""
    import pyarrow

    content = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_stream(content)
    except pyarrow.ArrowInvalid:
        return pyarrow.ipc.open_file(content).to_reader()
