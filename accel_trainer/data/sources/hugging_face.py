"""Hugging Face datasets: from the hub, from what save_to_disk wrote, from parquet, arrow and image folders."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import Missing, persistently
from accel_trainer.core.text import did_you_mean, first_line, listed
from accel_trainer.data.contents import Contents
from accel_trainer.data.dataset import LabelArray, Splits, require_same_classes
from accel_trainer.data.decode import CorruptImage, decode, read_encoded
from accel_trainer.data.listing import MISSING, Numbers, file_sizes

TRAIN_SPLITS = ("train", "training")
VAL_SPLITS = ("val", "validation", "valid", "dev", "test")
BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}
# It looks for files in the current folder; newer versions of the library refuse it themselves.
READERS_OF_PICKLES = ("pandas",)


class HuggingFace:
    """One split of a Hugging Face dataset; images are decoded here, by the same code as files.

    `classes` are those of the whole data set; this split's labels become indices into them.
    """

    def __init__(self, split: Any, image_column: str, label_column: str, classes: Sequence[Any]) -> None:
        from datasets import Image

        self.classes = [str(name) for name in classes]
        number = {name: i for i, name in enumerate(classes)}
        own_names = _class_names(split, label_column)
        given = split[label_column]
        if any(label is None or (own_names is not None and label < 0) for label in given):
            raise UserError(f"some images have no label (column {label_column!r})", key="dataset")
        names = given if own_names is None else [own_names[label] for label in given]
        self.labels: LabelArray = np.asarray([number[name] for name in names], dtype=np.int64)
        self._rows = split.select_columns([image_column]).cast_column(image_column, Image(decode=False))
        self._column = image_column
        self.contents: Contents | None = None

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage, also for a row without an image, and OSError."""
        row = self._rows[int(index)][self._column]
        if row is None:
            raise CorruptImage("the row has no image")
        content = row["bytes"] if row["bytes"] is not None else read_encoded(row["path"])
        if self.contents is not None:
            self.contents.note(index, content, row["path"] or f"row {index}")
        return decode(content)

    def describe(self, index: int) -> str:
        """The number of the row, and the path in it where it has one."""
        row = self._rows[int(index)][self._column] or {}
        return f"row {index} ({row['path']})" if row.get("path") else f"row {index}"

    def names(self, indices: Numbers) -> list[str]:
        """The paths that rows name, without what all begin with; numbers of rows where that tells them not apart."""
        paths = self._stored("path").to_pylist()
        if None in paths or len(set(paths)) < len(paths):
            return [f"row {index}" for index in indices.tolist()]
        skipped = len(os.path.commonpath(paths)) + 1 if len(paths) > 1 and "/" in paths[0] else 0
        return [paths[index][skipped:] for index in indices.tolist()]

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

    def _stored(self, field: str) -> Any:
        """`bytes` or `path` of all rows, as the table has them."""
        import pyarrow.compute

        rows = self._rows if self._rows._indices is None else self._rows.flatten_indices()
        return pyarrow.compute.struct_field(rows.data.column(self._column), field)


def open_hugging_face(name: str, image_column: str | None, label_column: str | None) -> Splits:
    """The train and validation splits of a data set, by hub id or path. Raises UserError."""
    splits = _load_splits(name)
    train, val = (splits[_first(splits, names, name)] for names in (TRAIN_SPLITS, VAL_SPLITS))
    image, label = image_column or _image_column(train), label_column or _label_column(train)
    for split in (train, val):
        _check_columns(split, image, label)
    classes = _class_names(train, label)
    if classes is None:
        classes = sorted({name for split in (train, val) for name in split[label] if name is not None})
    elif (val_names := _class_names(val, label)) is not None:
        require_same_classes(f"hf:{name}", classes, val_names)
    return Splits(HuggingFace(train, image, label, classes), HuggingFace(val, image, label, classes))


def open_hugging_face_validation(name: str, image_column: str | None, label_column: str | None) -> HuggingFace:
    """The validation split alone. The columns are those given where the data set has them, else they are found.

    Raises UserError.
    """
    splits = _load_splits(name)
    val = splits[_first(splits, VAL_SPLITS, name)]
    image = _given_or(image_column, val, _image_column)
    label = _given_or(label_column, val, _label_column)
    _check_columns(val, image, label)
    classes = _class_names(val, label)
    if classes is None:
        classes = sorted({name for name in val[label] if name is not None})
    return HuggingFace(val, image, label, classes)


def _given_or(column: str | None, split: Any, find: Callable[[Any], str]) -> str:
    """A column by the name that was given, where the split has it."""
    return column if column is not None and column in split.features else find(split)


def _image_column(split: Any) -> str:
    return _find_column(split, "image", _is_image, ("image", "img"))


def _label_column(split: Any) -> str:
    return _find_column(split, "label", _is_class_label, ("label", "labels", "class", "target"))


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_class_label(feature: Any) -> bool:
    return type(feature).__name__ == "ClassLabel"


def _class_names(split: Any, label_column: str) -> list[str] | None:
    """The names behind the numbers of a ClassLabel column; None for a column that has the classes themselves."""
    feature = split.features[label_column]
    return list(feature.names) if _is_class_label(feature) else None


def _check_columns(split: Any, image: str, label: str) -> None:
    for key, column in (("image_column", image), ("label_column", label)):
        if column not in split.features:
            raise UserError(
                f"{key}: no column {column!r}; there are {listed(split.features)}{did_you_mean(column, split.features)}"
            )
    if not _is_image(split.features[image]):
        raise UserError(f"the column {image!r} has no images", key="image_column")
    is_plain = getattr(split.features[label], "dtype", "") in ("string", "bool") or "int" in str(
        getattr(split.features[label], "dtype", "")
    )
    if not is_plain:
        raise UserError(f"the column {label!r} has neither class numbers nor names", key="label_column")


def _load_splits(name: str) -> Any:
    """A hub id, a folder of `save_to_disk`, a folder of images, or a folder or file of parquet or arrow. Raises
    UserError."""
    try:
        return persistently(partial(_load, name), lambda: f"hf:{name}", may_be_missing=True)
    except Missing as error:
        raise _not_found(name, str(error.strerror)) from error


def _not_found(name: str, why: str) -> UserError:
    return UserError(
        f"'hf:{name}' is neither a folder here nor a data set that the hub gives out: {why}", key="dataset"
    )


def _load(name: str) -> Any:
    """Raises Missing where something could not be reached, else UserError."""
    import datasets

    datasets.disable_progress_bars()
    path = Path(name).expanduser()
    try:
        if (path / "dataset_dict.json").exists():
            return datasets.load_from_disk(str(path))
        for suffix, builder in BUILDERS.items():
            found = [path] if path.suffix == suffix and path.is_file() else sorted(path.rglob(f"*{suffix}"))
            if found:
                return datasets.load_dataset(builder, data_files=_by_split(found))
        # The absolute path: a bare word can be one of the library's own readers, of which some unpickle.
        return datasets.load_dataset(str(path.absolute()) if path.exists() else _hub_id(name))
    except Exception as error:  # the library raises a great many kinds
        if _is_of_the_system(error):
            raise Missing(first_line(error), f"hf:{name}") from error
        raise _not_found(name, first_line(error)) from error


def _is_of_the_system(error: BaseException | None) -> bool:
    """Whether an error, or what has caused it, is one of a disk or a network."""
    return error is not None and (isinstance(error, OSError) or _is_of_the_system(error.__cause__ or error.__context__))


def _hub_id(name: str) -> str:
    """Raises ValueError."""
    if name in READERS_OF_PICKLES:
        raise ValueError("it is a reader of the datasets library, whose files can hold code")
    return name


def _by_split(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Files by the split that their name or folder begins with: `train-00000.parquet`, `validation/0.arrow`."""
    by_split: dict[str, list[str]] = {}
    for path in paths:
        words = [path.stem.split("-")[0].split("_")[0].lower(), path.parent.name.lower()]
        known = [word for word in words if word in (*TRAIN_SPLITS, *VAL_SPLITS)]
        by_split.setdefault(known[0] if known else "train", []).append(str(path))
    return by_split


def _first(splits: Any, names: Sequence[str], dataset: str) -> str:
    for name in names:
        if name in splits:
            return name
    raise UserError(f"'hf:{dataset}' has no split {' or '.join(names)}; it has {listed(splits)}", key="dataset")


def _find_column(split: Any, what: str, has_type: Callable[[Any], bool], names: Sequence[str]) -> str:
    of_type = [column for column, feature in split.features.items() if has_type(feature)]
    if len(of_type) == 1:
        return str(of_type[0])
    named = [column for column in names if column in (of_type or split.features)]
    if named:
        return named[0]
    raise UserError(
        f"{what}_column: cannot tell which column has the {what}s; name one of {listed(of_type or split.features)}"
    )
