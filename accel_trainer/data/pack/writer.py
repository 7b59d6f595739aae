"""Writing a pack: see accel_trainer.data.pack.format for what one is.

Its splits are written one after the other. The manifest is there from the first moment, says of a finished split what
its files are, and is replaced atomically.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from accel_trainer.config.dataset_names import is_hugging_face
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home_if_any, remove_stale_temp_files, write_atomic
from accel_trainer.data.augment.spectrum import Progress
from accel_trainer.data.dataset import ImageDataset, Splits
from accel_trainer.data.pack.format import (
    MANIFEST,
    Manifest,
    Packed,
    PackedSplit,
    SplitName,
    corrupt_records,
    digest_of_labels,
    open_packed_split,
    read_manifest,
)
from accel_trainer.data.pack.split_writer import CHUNK, PackedImages, PackSettings, SplitWriter, open_to_append
from accel_trainer.data.shared_work import in_order, single_core_threads
from accel_trainer.data.sources.digits import BUNDLED


def pack(
    images: Splits, dataset: str, folder: Path, how: PackSettings, num_threads: int, progress: Progress
) -> Manifest:
    """Write both splits of a data set, or what is missing of them. dataset: what to call it. Raises UserError."""
    wanted = Manifest(
        dataset=dataset,
        short_side=how.short_side,
        storage=how.storage,
        quality=how.quality,
        classes=list(images.classes),
        splits={"train": _to_pack(images.train), "val": _to_pack(images.val)},
    )
    total = sum(split.images for split in wanted.splits.values())
    sources: dict[SplitName, ImageDataset] = {"train": images.train, "val": images.val}
    with _locked(folder):
        try:
            manifest, done = _begin_or_resume(folder, wanted), 0
            for split, source in sources.items():
                about = manifest.splits[split]
                if about.index is None:
                    finished = _write(
                        folder, split, PackedImages(source, how, num_threads), about, _from(done, total, progress)
                    )
                    manifest = manifest.model_copy(update={"splits": {**manifest.splits, split: finished}})
                    _write_manifest(folder, manifest)
                done += about.images
                progress(done, total)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written: {error.strerror}; fix that, and the same command resumes where it was"
            ) from error
    return manifest


def _write(
    folder: Path, split: SplitName, images: PackedImages, about: PackedSplit, report: Callable[[int], None]
) -> PackedSplit:
    with SplitWriter(folder, split) as writer:
        for count in writer.write(images):
            report(count)
        return writer.about(about)


def _from(done: int, total: int, progress: Progress) -> Callable[[int], None]:
    return lambda count: progress(done + count, total)


def what_is_packed(name: str, data_root: Path) -> str:
    """What to call a data set that a job names: its folder, where it is one."""
    folder = expand_home_if_any(data_root) / name
    return str(folder.resolve()) if name not in BUNDLED and not is_hugging_face(name) else name


def damaged_images(folder: Path, num_threads: int, progress: Progress) -> Iterator[str]:
    """Read all of a pack: the names of images that are not what was written. Raises UserError for an incomplete one."""
    splits = [open_packed_split(folder, split) for split in get_args(SplitName)]
    total, done = sum(len(split.labels) for split in splits), 0
    with single_core_threads(num_threads, "verify") as pool:
        for source in splits:
            number = len(source.labels)
            chunks = [range(start, min(start + CHUNK, number)) for start in range(0, number, CHUNK)]

            def damaged(chunk: range, source: Packed = source) -> list[int]:
                return [chunk[i] for i in corrupt_records(source.file, source.records[chunk.start : chunk.stop])]

            for chunk, bad in zip(
                chunks, in_order(lambda chunk: pool.submit(damaged, chunk), chunks, num_threads + 1), strict=True
            ):
                yield from (source.name(index) for index in bad)
                done += len(chunk)
                progress(done, total)


def _to_pack(source: ImageDataset) -> PackedSplit:
    return PackedSplit(images=len(source.labels), labels=digest_of_labels(source.labels))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, so that no other process writes to it. Raises UserError, also for a folder with other files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UserError(f"{folder} is there and is no pack; choose another `output`")
        lock = os.fdopen(open_to_append(folder / ".lock"), "w")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}; choose another `output`") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another process is packing into it") from error
        except OSError:
            pass  # a network disk without locks
        yield


def _begin_or_resume(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest of the pack that is to be, or that of what there is of it."""
    remove_stale_temp_files(folder)
    if not (folder / MANIFEST).exists():
        _write_manifest(folder, wanted)
        return wanted
    there = read_manifest(folder)
    if different := _difference(there, wanted):
        raise UserError(f"{folder} is a pack of {different}; delete it, or choose another `output`")
    return there


def _difference(there: Manifest, wanted: Manifest) -> str | None:
    if there.dataset != wanted.dataset:
        return f"{there.dataset}, not {wanted.dataset}"
    settings = [(m.short_side, m.storage, m.quality) for m in (there, wanted)]
    if settings[0] != settings[1]:
        return f"size {there.short_side}, {there.storage}{'' if there.quality is None else f' {there.quality}'}"
    counts = [[(name, split.images, split.labels) for name, split in m.splits.items()] for m in (there, wanted)]
    if there.classes != wanted.classes or counts[0] != counts[1]:
        return f"{there.dataset} as it was before images came or went"
    return None


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
