"""Hugging Face datasets: from the hub, from what save_to_disk wrote, from parquet, arrow and image folders."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from accel_trainer.config.dataset_names import HF
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.data.contents import Contents
from accel_trainer.data.dataset import LabelArray, Splits
from accel_trainer.data.decode import CorruptImage, decode, read_encoded
from accel_trainer.data.listing import MISSING, Numbers, file_sizes, file_stamps
from accel_trainer.data.sources.image_column import ImageArrays, as_images, has_arrays, has_images, table_stamps
from accel_trainer.data.sources.label_column import (
    SplitLabels,
    Value,
    check_names,
    join_classes,
    labels_among,
    read_labels,
)
from accel_trainer.data.sources.part_labels import LABEL_NAMES
from accel_trainer.data.sources.split_loading import load_splits

IMAGE_NAMES = ("image", "img")


class HuggingFace:
    """One split of a Hugging Face dataset; images are decoded here, by the same code as files.

    `classes` are those of the whole data set; `labels`, int64 (n,), are indices into them.
    """

    def __init__(self, split: Any, image_column: str, labels: LabelArray, classes: Sequence[Value]) -> None:
        self.classes = [str(name) for name in classes]
        self.labels = labels
        self._rows = as_images(split, image_column)
        self._column = image_column
        self.contents: Contents | None = None

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage, also for a row without an image, and OSError."""
        return decode(self.encoded(index))

    def encoded(self, index: int) -> bytes:
        """The bytes in the table, or in the file that it names. Raises as `read`."""
        row = self._rows[int(index)][self._column]
        if row is None:
            raise CorruptImage("the row has no image")
        content = row["bytes"] if row["bytes"] is not None else read_encoded(row["path"])
        if self.contents is not None:
            self.contents.note(index, content, row["path"] or f"row {index}")
        return bytes(content)

    def describe(self, index: int) -> str:
        """The number of the row, and the path in it where it has one."""
        row = self._rows[int(index)][self._column] or {}
        return f"row {index} ({row['path']})" if row.get("path") else f"row {index}"

    def names(self, indices: Numbers) -> list[str]:
        """The paths that rows name, without what all begin with; numbers of rows where that tells them not apart."""
        paths = self._stored("path").to_pylist()
        if None in paths or len(set(paths)) < len(paths):
            return [f"row {index}" for index in indices.tolist()]
        shortened = _without_common_folder(paths)
        return [shortened[index] for index in indices.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Bytes of the encoded images, whether they are in the table or in files."""
        import pyarrow.compute

        lengths = pyarrow.compute.binary_length(self._stored("bytes"))
        of_rows: Numbers = pyarrow.compute.fill_null(lengths, MISSING).to_numpy().astype(np.int64)
        sizes = of_rows[indices]
        if len(elsewhere := np.flatnonzero(sizes == MISSING)):
            paths = self._stored("path").to_pylist()
            named = [paths[indices[position]] or "" for position in elsewhere.tolist()]
            sizes[elsewhere] = file_sizes(named, is_canceled)
        return sizes

    def stamps(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """Of the files that the table is in, the same for all, and of those that it names."""
        stamps = table_stamps(self._rows, len(indices), is_canceled)
        paths = self._stored("path").to_pylist()
        is_elsewhere = self._stored("bytes").is_null().to_numpy()[indices]
        named = [paths[index] or "" for index in indices[is_elsewhere].tolist()]
        stamps[is_elsewhere] ^= file_stamps(named, is_canceled)
        return stamps

    def _stored(self, field: str) -> Any:
        """`bytes` or `path` of all rows, as the table has them."""
        import pyarrow.compute

        rows = self._rows if self._rows._indices is None else self._rows.flatten_indices()
        return pyarrow.compute.struct_field(rows.data.column(self._column), field)


def _without_common_folder(paths: list[str]) -> list[str]:
    """Different paths without the folder that all are in; as they are where only some are absolute, or where that tells
    them no longer apart."""
    if len(paths) < 2 or "/" not in paths[0]:
        return paths
    try:
        skipped = len(os.path.commonpath(paths)) + 1
    except ValueError:  # some are absolute, others not
        return paths
    # Of paths in different folders this takes the first letter, which runs have recorded so.
    shortened = [path[skipped:] for path in paths]
    return shortened if len(set(shortened)) == len(paths) else paths


def open_hugging_face(name: str, image_column: str | None, label_column: str | None) -> Splits:
    """The train and validation splits of a data set, by hub id or path. Raises UserError."""
    loaded = load_splits(name, label_column=label_column)
    train, val = loaded.train, loaded.val
    image, label = image_column or _image_column(train), label_column or _label_column(train)
    for what, split in (("train", train), ("val", val)):
        _check_columns(split, image, label, "" if what == "train" else " in the split to validate on")
    labels = {what: _labels(split, label, name, what) for what, split in (("train", train), ("val", val))}
    classes = join_classes(labels["train"], labels["val"], name)
    return Splits(
        train=_source(train, image, labels["train"], classes, name, "train"),
        val=_source(val, image, labels["val"], classes, name, "val"),
        notes=[f"'{HF}{name}' has {loaded.description}"],
    )


def open_hugging_face_validation(
    name: str, image_column: str | None, label_column: str | None
) -> "HuggingFace | ImageArrays":
    """The validation split alone. The columns are those given where the data set has them, else they are found.

    Raises UserError.
    """
    val = load_splits(name, needs_train=False, label_column=label_column).val
    image = _given_or(image_column, val, _image_column)
    label = _given_or(label_column, val, _label_column)
    _check_columns(val, image, label, "")
    labels = _labels(val, label, name, "val")
    return _source(val, image, labels, labels.values, name, "val")


def _labels(split: Any, column: str, dataset: str, what: str) -> SplitLabels:
    labels = read_labels(split, column, f"{what} of '{HF}{dataset}'")
    check_names(labels, f"{what} of '{HF}{dataset}'")
    return labels


def _source(
    split: Any, image: str, labels: SplitLabels, classes: Sequence[Value], dataset: str, what: str
) -> "HuggingFace | ImageArrays":
    numbers = labels_among(labels, classes, f"{what} of '{HF}{dataset}'")
    kind = ImageArrays if has_arrays(split.features[image]) else HuggingFace
    return kind(split, image, numbers, classes)


def _given_or(column: str | None, split: Any, find: Callable[[Any], str]) -> str:
    """A column by the name that was given, where the split has it."""
    return column if column is not None and column in split.features else find(split)


def _image_column(split: Any) -> str:
    declared = [column for column, feature in split.features.items() if type(feature).__name__ == "Image"]
    possible = [column for column, feature in split.features.items() if has_images(feature) or has_arrays(feature)]
    return _pick("image", declared or possible, IMAGE_NAMES, split.features)


def _label_column(split: Any) -> str:
    declared = [column for column, feature in split.features.items() if type(feature).__name__ == "ClassLabel"]
    return _pick("label", declared, LABEL_NAMES, split.features)


def _check_columns(split: Any, image: str, label: str, where: str) -> None:
    for key, column in (("image_column", image), ("label_column", label)):
        if column not in split.features:
            raise UserError(
                f"{key}: no column {column!r}{where}; there are {listed(split.features)}"
                f"{did_you_mean(column, split.features)}"
            )
    if not (has_images(split.features[image]) or has_arrays(split.features[image])):
        raise UserError(f"the column {image!r}{where} has no images", key="image_column")


def _pick(what: str, of_type: Sequence[str], names: Sequence[str], columns: Sequence[str]) -> str:
    """The only column of its type, or of those, or of all where none is, the only one with a name for it. Raises
    UserError where there are several, and where one has the type and another has the name."""
    named = [column for column in names if column in columns]
    candidates = of_type or named
    chosen = [column for column in candidates if column in named] or candidates
    if len(chosen) == 1 and set(named) <= set(candidates):
        return chosen[0]
    there = list(dict.fromkeys([*of_type, *named])) if of_type else columns
    raise UserError(f"{what}_column: cannot tell which column has the {what}s; name one of {listed(there)}")
