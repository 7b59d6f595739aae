"""The dissimilarity matrices of a folder of features, written to a folder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import replacing
from accel_trainer.core.text import one_line
from accel_trainer.representations.conditions import Conditions, by_folder, by_table, each_alone
from accel_trainer.representations.crossnobis import crossnobis, noise_covariance
from accel_trainer.representations.dissimilarity import Distance, dissimilarity_blocks, num_pairs
from accel_trainer.representations.feature_folder import Features, folder_of_layer, read_features
from accel_trainer.representations.layer_names import layer_and_cycle
from accel_trainer.representations.rdm_files import RDMS, as_csv, writing_rdms
from accel_trainer.representations.rows import Floats, Means, Rows

RDM, TABLE, CONDITIONS = "rdm.npy", "rdm.csv", "conditions.txt"
BY_CLASS = "class"


@dataclass(frozen=True)
class RdmSettings:
    """distance: of two patterns. layers: as of `read_features`. by: None, each image is a condition; "class", the
    folder it is in; else a table (`by_table`). noise: of crossnobis, whether its covariance is estimated. table:
    whether a CSV is written too."""

    distance: Distance = Distance.PEARSON
    layers: Sequence[str] | None = None
    by: str | Path | None = None
    noise: bool = False
    table: bool = False


@dataclass(frozen=True)
class WrittenRdms:
    """Matrices in a folder. layers: names of layers and cycles, in the order of the matrices; left_out: corrupt
    images."""

    folder: Path
    distance: str
    layers: tuple[str, ...]
    conditions: int
    images: int
    left_out: int

    def as_row(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {**asdict(self), "folder": str(self.folder), "layers": list(self.layers)}


def write_rdms(features: Path, out: Path, settings: RdmSettings | None = None) -> WrittenRdms:
    """Write the matrices of layers to a new folder, which appears when all are there: `rdms.h5` for rsatoolbox,
    `<layer>/rdm.npy`, `conditions.txt`. What is in memory grows neither with images nor with layers; with repeats, with
    the conditions. Raises UserError, OSError."""
    wanted = settings or RdmSettings()
    if wanted.noise and wanted.distance is not Distance.CROSSNOBIS:
        raise UserError("is of crossnobis alone", option="noise")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty", option="out")
    found = read_features(features, wanted.layers)
    conditions = _conditions(found, wanted)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out, durable=True) as aside:
        aside.mkdir()
        (aside / CONDITIONS).write_text("".join(f"{one_line(name)}\n" for name in conditions.names))
        _write(aside, found, conditions, wanted)
    images = sum(map(len, conditions.members))
    return WrittenRdms(
        out, str(wanted.distance), tuple(found.layers), len(conditions.names), images, len(found.corrupt)
    )


def _conditions(found: Features, wanted: RdmSettings) -> Conditions:
    if wanted.by is None:
        return each_alone(found.names, found.corrupt)
    if wanted.by == BY_CLASS:
        return by_folder(found.names, found.corrupt)
    return by_table(found.names, Path(wanted.by), found.corrupt)


def _write(folder: Path, found: Features, conditions: Conditions, wanted: RdmSettings) -> None:
    layers = [layer_and_cycle(name) for name in found.layers]
    with ExitStack() as stack:
        add = stack.enter_context(writing_rdms(folder / RDMS, conditions.names, layers, str(wanted.distance)))
        for name, rows in found.layers.items():
            place = folder / folder_of_layer(name)
            place.mkdir()
            try:
                _write_layer(place / RDM, _blocks(rows, conditions, wanted), num_pairs(len(conditions.names)), add)
            except UserError as error:
                raise error.at(name) from error
            if wanted.table:
                with (place / TABLE).open("w", encoding="utf-8") as file:
                    file.writelines(as_csv(np.load(place / RDM, allow_pickle=False), conditions.names))


def _blocks(rows: Rows, conditions: Conditions, wanted: RdmSettings) -> Iterator[Floats]:
    if wanted.distance is Distance.CROSSNOBIS:
        yield crossnobis(rows, conditions, noise_covariance(rows, conditions) if wanted.noise else None)
        return
    is_all = wanted.by is None and len(conditions.names) == rows.shape[0]
    yield from dissimilarity_blocks(rows if is_all else Means(rows, conditions.members), wanted.distance)


def _write_layer(path: Path, blocks: Iterator[Floats], length: int, add: Callable[[Floats], None]) -> None:
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, "<f8").data)
            add(block)
