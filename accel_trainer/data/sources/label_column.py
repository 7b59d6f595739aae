"""The labels of a Hugging Face dataset: names or numbers, in columns of many types."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute

from accel_trainer.config.dataset_names import HF
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.data.dataset import LabelArray, normal_form, require_distinct_names, require_same_classes

Value = str | int | bool


@dataclass(frozen=True)
class SplitLabels:
    """codes: int64 (n,), indices into values; values: the classes, each once, of one type. is_declared: they are those
    of the column's ClassLabel, in its order, whether an image has them or not."""

    codes: LabelArray
    values: Sequence[Value]
    kind: str
    is_declared: bool = False


def read_labels(split: Any, column: str, what: str) -> SplitLabels:
    """The labels of a split. what: to call it in messages. Raises UserError for images without a label, and a column
    that has none."""
    feature = split.features[column]
    data = split.select_columns([column]).with_format("arrow")[:].column(0).combine_chunks()
    kind = data.type
    if type(feature).__name__ == "ClassLabel":
        numbers = _numbers(data, what, column)
        if len(beyond := np.flatnonzero(numbers >= len(feature.names))):
            number = numbers[beyond[0]]
            raise UserError(
                f"{what} has label {number} in row {beyond[0]}, and there are {len(feature.names)} classes, from 0",
                key="dataset",
            )
        return SplitLabels(numbers, list(feature.names), "names", is_declared=True)
    if pyarrow.types.is_integer(kind):
        values, codes = np.unique(_numbers(data, what, column), return_inverse=True)
        return SplitLabels(codes.astype(np.int64), values.tolist(), "numbers")
    if pyarrow.types.is_boolean(kind):
        values, codes = np.unique(_numbers(data.cast(pyarrow.int64()), what, column), return_inverse=True)
        return SplitLabels(codes.astype(np.int64), [bool(value) for value in values], "true or false")
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind):
        encoded = data.cast(pyarrow.large_string()).dictionary_encode()
        given: list[str] = encoded.dictionary.to_pylist()
        of_rows = encoded.indices
        if "" in given:  # of tables that mean nothing by it
            of_rows = pyarrow.compute.if_else(pyarrow.compute.equal(of_rows, given.index("")), None, of_rows)
        codes = _numbers(of_rows, what, column)
        order = sorted(range(len(given)), key=given.__getitem__)
        names = [given[position] for position in order if given[position]]
        place = {name: number for number, name in enumerate(names)}
        new = np.array([place.get(name, -1) for name in given], dtype=np.int64)
        return SplitLabels(new[codes], names, "names")
    hint = "missing labels make numbers of integers: take those rows out" if pyarrow.types.is_floating(kind) else None
    raise UserError(
        f"the column {column!r} of {what} has neither class numbers nor names; it is of type {kind}",
        key="label_column",
        hint=hint,
    )


def _numbers(data: Any, what: str, column: str) -> LabelArray:
    """Integers as int64 (n,), none of which is missing. -1 stands for that in sets whose labels are secret."""
    if pyarrow.types.is_uint64(data.type):
        data = data.cast(pyarrow.int64(), safe=False)
    numbers: LabelArray = pyarrow.compute.fill_null(data.cast(pyarrow.int64()), -1).to_numpy(zero_copy_only=False)
    if len(missing := np.flatnonzero(numbers < 0)):
        raise UserError(
            f"some images have no label (column {column!r} of {what}): {len(missing):,} of {len(numbers):,}, "
            f"the first in row {missing[0]}",
            key="dataset",
        )
    return numbers


def join_classes(train: SplitLabels, val: SplitLabels, dataset: str) -> Sequence[Value]:
    """The classes of both splits, in the order of their labels. Raises UserError where they cannot be compared."""
    if train.kind != val.kind:
        raise UserError(
            f"'{HF}{dataset}' has {train.kind} for labels in train ({_examples(train)}) and {val.kind} in val "
            f"({_examples(val)})",
            key="dataset",
            hint="store both alike, as a ClassLabel",
        )
    if train.is_declared and val.is_declared:
        require_same_classes(f"{HF}{dataset}", list(map(str, train.values)), list(map(str, val.values)))
        return train.values
    if train.is_declared:
        return train.values
    known = {_key(value) for value in train.values}
    return sorted([*train.values, *(value for value in _occurring(val) if _key(value) not in known)])


def labels_among(labels: SplitLabels, classes: Sequence[Value], what: str) -> LabelArray:
    """int64 (n,): labels of a split as indices into `classes`. Raises UserError for a class that is none of them."""
    number = {_key(value): position for position, value in enumerate(classes)}
    new = np.array([number.get(_key(value), -1) for value in labels.values], dtype=np.int64)
    codes: LabelArray = new[labels.codes] if len(labels.codes) else labels.codes
    if (codes < 0).any():
        unknown = {str(labels.values[code]) for code in np.unique(labels.codes[codes < 0]).tolist()}
        raise UserError(f"{what} has classes that training has not: {listed(sorted(unknown))}", key="dataset")
    return codes


def check_names(labels: SplitLabels, what: str) -> None:
    """Refuse two classes whose names are the same to a reader. Raises UserError."""
    require_distinct_names([str(value) for value in labels.values], what)


def _occurring(labels: SplitLabels) -> list[Any]:
    return [labels.values[code] for code in np.unique(labels.codes).tolist()]


def _key(value: Value) -> Value:
    return normal_form(value) if isinstance(value, str) else value


def _examples(labels: SplitLabels) -> str:
    return listed(map(repr, labels.values), 3)
