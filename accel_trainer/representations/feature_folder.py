"""A folder of features, as `evaluation/feature_files.py` writes it, read by rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, read_json, read_text
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.representations.layer_names import layer_and_cycle
from accel_trainer.representations.rows import FileRows

NAMES, DESCRIPTION = "file_names.txt", "features.json"
NPY, SAFETENSORS = "features.npy", "features.safetensors"
MAX_NAMES_BYTES = 1024 * MEBIBYTE
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def folder_of_layer(name: str) -> str:
    """What the folder of a layer's array is called."""
    return quote(name, safe="")


@dataclass(frozen=True)
class Features:
    """What layers gave for images. names: of the images, in the order of the rows; layers: rows (images, values) by the
    name of the layer and cycle; corrupt: names of images whose features are NaN."""

    folder: Path
    names: tuple[str, ...]
    layers: dict[str, FileRows]
    corrupt: frozenset[str]


def read_features(folder: Path, layers: Sequence[str] | None = None) -> Features:
    """The features in a folder; nothing but names is read yet. layers: names, or `IT` for all cycles of IT; None: all.

    Raises UserError where the folder has none, or not all of them yet, or no such layer; OSError.
    """
    try:
        about = read_json(folder / DESCRIPTION)
        shapes, is_complete = dict[str, Any](about["layers"]), about["complete"]
        is_npy, corrupt = about["format"] == "npy", frozenset(map(str, about["corrupt"]))
    except FileNotFoundError as error:
        hint = "`accel-train features` writes them"
        raise UserError(f"has no {DESCRIPTION}: no features", where=folder, hint=hint) from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError("is damaged", where=folder / DESCRIPTION) from error
    if not is_complete:
        raise UserError("its features are not complete", where=folder, hint="write them by the same command again")
    chosen = list(shapes) if layers is None else _chosen(list(shapes), layers)
    places = {name: folder / folder_of_layer(name) / NPY for name in chosen}
    found = (
        {name: _npy_rows(path) for name, path in places.items()} if is_npy else _tensors(folder / SAFETENSORS, chosen)
    )
    name_file = next(iter(places.values())).parent if is_npy else folder
    names = tuple(read_text(name_file / NAMES, MAX_NAMES_BYTES).removesuffix("\n").split("\n"))
    for name, rows in found.items():
        if rows.shape[0] != len(names):
            raise UserError(f"{name} has {rows.shape[0]} rows for {len(names)} images", where=folder)
    return Features(folder, names, found, corrupt)


def _chosen(there: Sequence[str], words: Sequence[str]) -> list[str]:
    found = dict[str, None]()
    for word in words:
        matches = [name for name in there if name == word or layer_and_cycle(name)[0] == word]
        if not matches:
            near = did_you_mean(word, there)
            raise UserError(f"there are no features of {word!r}{near}; there are: {listed(there)}", option="layers")
        found |= dict.fromkeys(matches)
    return list(found)


def _npy_rows(path: Path) -> FileRows:
    with path.open("rb") as file:
        try:
            shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
        except (ValueError, KeyError) as error:
            raise UserError("is no .npy file of ours", where=path) from error
        if is_fortran or not shape or dtype.kind != "f":
            raise UserError("has no rows of numbers", where=path)
        return FileRows(path, file.tell(), _flat(shape), dtype)


def _tensors(path: Path, names: Sequence[str]) -> dict[str, FileRows]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, 100 * MEBIBYTE)))
            entries = {name: (header[name]["shape"], header[name]["data_offsets"][0]) for name in names}
        except (ValueError, TypeError, KeyError) as error:
            raise UserError("is damaged", where=path) from error
    return {
        name: FileRows(path, 8 + length + start, _flat(shape), np.dtype("<f4"))
        for name, (shape, start) in entries.items()
    }


def _flat(shape: Sequence[int]) -> tuple[int, int]:
    return int(shape[0]), int(np.prod(shape[1:], dtype=np.int64))
