"""Degraded images written as a set of files, which `open_stored` reads back to the same pixels."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import read_json, remove_stale_temp_files, write_atomic
from accel_trainer.data.augment.geometry import CenterCrop
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.shared_work import in_order, single_core_threads
from accel_trainer.degradations.degradation import Condition, Pixels
from accel_trainer.degradations.stored_sets import image_ids

RECORD = "degraded.json"
# zlib's: noise has no smaller form, and the fastest takes a fifth of the time.
PNG_COMPRESSION = 1
AHEAD = 2


@dataclass(frozen=True)
class Rendered:
    """What was written. images: in each condition; written: files of this time; corrupt: names of images that cannot
    be decoded, which are in no condition."""

    images: int
    conditions: int
    written: int
    corrupt: Sequence[str]


def cropped(source: ImageDataset, index: int, size: int, crop: float) -> Pixels:
    """An image as a validation crops it: uint8 (size, size, 3). Raises CorruptImage."""
    return np.ascontiguousarray(CenterCrop(size, crop).crop(source.read(index)).permute(1, 2, 0).numpy())


def render(
    source: ImageDataset,
    conditions: Sequence[Condition],
    out: Path,
    *,
    size: int,
    crop: float,
    num_threads: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rendered:
    """Write `<out>/<degradation>/<level>/<class>/<image>.png` for each image and condition; what is there stays.

    Each image is decoded once, its center cropped as in a validation (crop: share of the shorter side, resized to
    `size`), and keyed by its path below its class, as in an evaluation. A file is there whole or not at all. Raises
    UserError where the folder has images of another size or of others; OSError.
    """
    ids = image_ids(source)
    files = list(_file_names(ids))
    _claim(out, {"size": size, "crop": crop, "images": len(ids), "classes": list(source.classes)})
    _remove_half_written(out, conditions, files)
    task = partial(_render_one, source, conditions, out, size, crop)
    written, corrupt = 0, list[str]()
    with single_core_threads(num_threads, "degrade") as pool:

        def submit(item: tuple[int, str, str]) -> "Future[int | None]":
            return pool.submit(task, *item)

        work = ((index, *names) for index, names in enumerate(zip(ids, files, strict=True)))
        for done, count in enumerate(in_order(submit, work, num_threads + AHEAD), 1):
            written += count or 0
            if count is None:
                corrupt.append(source.describe(done - 1))
            progress(done, len(ids))
    return Rendered(len(ids) - len(corrupt), len(conditions), written, corrupt)


def _render_one(
    source: ImageDataset,
    conditions: Sequence[Condition],
    out: Path,
    size: int,
    crop: float,
    index: int,
    name: str,
    file: str,
) -> int | None:
    """How many files were written; None where the image is corrupt."""
    missing = [one for one in conditions if not (out / one.name / file).is_file()]
    if not missing:
        return 0
    try:
        pixels = cropped(source, index, size, crop)
    except CorruptImage:
        return None
    for condition in missing:
        path = out / condition.name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _as_png(condition.degrade(pixels, name)), durable=False)
    return len(missing)


def _remove_half_written(out: Path, conditions: Sequence[Condition], files: Sequence[str]) -> None:
    """What a killed process has left beside the files."""
    folders = dict.fromkeys(str(PurePosixPath(file).parent) for file in files)
    for condition in conditions:
        if (out / condition.name).is_dir():
            for folder in folders:
                remove_stale_temp_files(out / condition.name / folder)


def _as_png(pixels: Pixels) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", compress_level=PNG_COMPRESSION)
    return encoded.getvalue()


def _file_names(ids: Sequence[str]) -> Iterator[str]:
    """`cat/1.png` for `cat/1.jpg`; `cat/1.jpg.png` where there is another cat/1."""
    stems = [str(PurePosixPath(name).with_suffix("")) for name in ids]
    counts = Counter(stems)
    for name, stem in zip(ids, stems, strict=True):
        yield f"{stem if counts[stem] == 1 else name}.png"


def _claim(out: Path, record: dict[str, object]) -> None:
    """Note what the folder is of. Raises UserError where it is of something else."""
    path = out / RECORD
    if path.exists():
        there = read_json(path)
        if there != record:
            differing = [key for key, value in record.items() if not isinstance(there, dict) or there.get(key) != value]
            raise UserError(
                f"has images that were made with another {' and '.join(differing)}",
                where=out,
                hint="name another folder",
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(record, indent=1) + "\n")
