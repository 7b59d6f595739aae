"""Packs: data sets whose images are stored small and ready to be read, as `accel-train pack` writes them.

    NAME.pack/
      pack.json      what it is: a Manifest
      train.pixels   image after image: its pixels (or JPEG, or why it is corrupt), then its name
      train.index    a record for each image (RECORD), in the order of the data set
      val.pixels, val.index

A pack is read only if every file is complete: lengths and the checksums of the indices are looked at when it is opened,
that of each image when a process first reads it, and those of all images by `corrupt_records`.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from accel_trainer.core import files
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import UnsuitableFile, persistently
from accel_trainer.core.random_access import RandomAccessFile
from accel_trainer.data.dataset import LabelArray, Splits
from accel_trainer.data.decode import CorruptImage, decode
from accel_trainer.data.listing import Numbers
from accel_trainer.data.native.images import TOGETHER, Blocks, Images
from accel_trainer.data.native.library import kernel
from accel_trainer.data.native.stored import Extents, StoredImages, find_stored, read, will_need

VERSION = 1
MANIFEST = "pack.json"
SUFFIX = ".pack"

# Bytes of the image and, after them, of its name; height and width in pixels, 0 of a corrupt image; checksum: CRC-32
# of image and name.
RECORD = np.dtype(
    [
        ("offset", "<u8"),
        ("size", "<u4"),
        ("name_size", "<u4"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("label", "<u4"),
        ("checksum", "<u4"),
    ]
)
Records = npt.NDArray[np.void]
SplitName = Literal["train", "val"]
AGAIN = "delete the pack and pack again"
MAX_INDEX = 2**32
_MAX_MANIFEST = 64 * files.MEBIBYTE


class PackedSplit(BaseModel):
    """images: how many there are to be; labels: a digest of theirs. The rest is known when all are there: bytes of
    .pixels, corrupt images, and a digest of .index."""

    model_config = ConfigDict(extra="forbid")

    images: int = Field(ge=0)
    labels: str
    size: int | None = None
    corrupt: int | None = None
    index: str | None = None


class Manifest(BaseModel):
    """What pack.json says."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    dataset: str
    """What was packed, as a job names it, or its folder."""
    short_side: int = Field(ge=1)
    """Pixels; images whose short side was smaller are as they were."""
    storage: Literal["raw", "jpeg"]
    quality: int | None = None
    """Of JPEG."""
    classes: list[str]
    splits: dict[SplitName, PackedSplit]

    @property
    def is_complete(self) -> bool:
        """Whether all images of both splits are in the pack."""
        return all(split.index is not None for split in self.splits.values())

    @field_validator("splits")
    @classmethod
    def _has_both(cls, splits: dict[SplitName, PackedSplit]) -> dict[SplitName, PackedSplit]:
        if len(splits) != len(get_args(SplitName)):
            raise ValueError("one is missing")
        return splits


def is_pack(folder: Path) -> bool:
    """Whether a folder is a pack, or claims to be one. Raises OSError where that cannot be seen."""
    try:
        os.stat(folder / MANIFEST)  # noqa: PTH116 - Path.exists takes some errors for an answer
    except (FileNotFoundError, NotADirectoryError):
        return folder.suffix == SUFFIX and folder.is_dir()
    return True


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a pack. Raises UserError for what is no pack, or one of another version."""
    path = folder / MANIFEST
    try:
        given = persistently(partial(files.read_json, path, _MAX_MANIFEST), lambda: str(path), may_be_missing=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is no pack: it has no {MANIFEST}; `accel-train pack` makes one", key="dataset"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", key="dataset") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged; {AGAIN}", key="dataset") from error
    version = given.get("version") if isinstance(given, dict) else None
    if isinstance(version, int) and version != VERSION:
        raise UserError(f"{folder} is a pack of version {version}, not {VERSION}; {AGAIN}", key="dataset")
    try:
        return Manifest.model_validate(given)
    except ValidationError as error:
        raise UserError(f"{path} is not what `accel-train pack` writes; {AGAIN}", key="dataset") from error


def open_pack(folder: Path) -> Splits:
    """Both splits of a pack. Raises UserError for what is no pack, or an incomplete one."""
    return Splits(open_packed_split(folder, "train"), open_packed_split(folder, "val"))


def open_packed_split(folder: Path, split: SplitName) -> "Packed":
    """`train` or `val` of a pack. Raises UserError."""
    manifest = read_manifest(folder)
    if not manifest.is_complete:
        raise UserError(f"{folder} is not complete; the same `accel-train pack` again resumes it", key="dataset")
    return Packed(folder, split, manifest)


class PixelFile(RandomAccessFile):
    """A .pixels file. Raises UserError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path)
        except UnsuitableFile as error:
            raise UserError(f"{path} is {error.strerror}", key="dataset") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}; {AGAIN}", key="dataset") from error


class Packed:
    """One split of a pack."""

    def __init__(self, folder: Path, split: SplitName, manifest: Manifest) -> None:
        about = manifest.splits[split]
        self._folder, self._is_raw = folder, manifest.storage == "raw"
        self.classes = manifest.classes
        self.records = _read_index(folder, split, manifest, about)
        self.file = PixelFile(folder / f"{split}.pixels")
        if self.file.size != about.size:
            raise UserError(
                f"{folder}/{split}.pixels has {self.file.size:,} bytes instead of {about.size:,}; {AGAIN}",
                key="dataset",
            )
        self.labels: LabelArray = self.records["label"].astype(np.int64)
        # Of which opening of the file each image was last compared with its checksum.
        self._checked = np.zeros(len(self.records), np.int64)
        self._blocks = Blocks()

    def read(self, index: int) -> Tensor:
        """uint8 (3, height, width). Raises CorruptImage, OSError where the pack cannot be read, and UserError for what
        is not what was packed."""
        content, record = self._content(index), self.records[index]
        if self._is_raw:
            return torch.from_numpy(content.reshape(record["height"], record["width"], 3)).permute(2, 0, 1)
        return decode(content.tobytes())

    def encoded(self, index: int) -> bytes | None:
        """The JPEG of an image; None where its pixels are stored. Raises as `read`."""
        return None if self._is_raw else self._content(index).tobytes()

    def _content(self, index: int) -> npt.NDArray[np.uint8]:
        record = self.records[index]
        opening = self.file.num_openings
        content = self.file.read(int(record["offset"]), int(record["size"]) + int(record["name_size"]))
        if self._checked[index] != self.file.num_openings:  # also where it was opened again for this
            if zlib.crc32(content.data) != record["checksum"]:
                raise UserError(
                    f"{self.file.path} is damaged, or of another pack than the files beside it: image {index} is not "
                    f"what was packed; {AGAIN}",
                    key="dataset",
                )
            self._checked[index] = opening
        content = content[: int(record["size"])]
        if not record["height"]:
            raise CorruptImage(content.tobytes().decode(errors="replace"))
        return content

    def read_together(self, indices: LabelArray) -> Images | None:
        """The first of these images, by one call of the kernel; None without it, for JPEG, where not all is well."""
        compiled, opening = kernel(), self.file.num_openings
        records = self.records[indices]
        if compiled is None or not self._is_raw or self.file.has_failed or not records["height"].all():
            return None
        is_new = self._checked[indices] != opening
        sizes = records["size"].astype(np.int64) + np.where(is_new, records["name_size"], 0)
        number = max(1, int(np.searchsorted(np.cumsum(sizes), TOGETHER, "right")))
        records, is_new = records[:number], is_new[:number]
        extents = Extents.of(records["offset"], sizes[:number], is_new, records["checksum"], self._blocks)
        if not read(compiled, self.file.descriptor, extents):
            return None
        self._checked[indices[:number]] = opening
        return Images.packed(extents.block, extents.starts, records["height"], records["width"])

    def stored(self, indices: LabelArray) -> StoredImages | None:
        """Where the pixels of these images are; None without the kernel, and for JPEG."""
        compiled, opening = kernel(), self.file.num_openings
        if compiled is None or not self._is_raw:
            return None
        table, sizes = find_stored(compiled, self.records, indices, self._checked, opening)
        return StoredImages(self.file, table, sizes, indices, opening, self._have_compared)

    def _have_compared(self, indices: LabelArray, opening: int) -> None:
        self._checked[indices] = opening

    def will_need(self, indices: LabelArray) -> None:
        """Have the system read ahead what it has not of these images."""
        if (compiled := kernel()) is not None and not self.file.has_failed:
            records = self.records[indices]
            will_need(
                compiled, self.file.descriptor, records["offset"].astype(np.int64), records["size"].astype(np.int64)
            )

    def describe(self, index: int) -> str:
        """Its name in the data set that was packed, and the folder of the pack."""
        return f"{self.name(index)} in {self._folder}"

    def name(self, index: int) -> str:
        """What the data set that was packed calls the image."""
        return name_of(self.file, self.records[index])

    def names(self, indices: Numbers) -> list[str]:
        """The numbers of images: what they were called is read with them, and is part of their checksums."""
        return [str(index) for index in indices.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """The checksums of images and names, from the index."""
        return self.records["checksum"][indices].astype(np.int64)


def name_of(file: PixelFile, record: Any) -> str:
    """What the data set that was packed calls an image. Raises OSError."""
    content = file.read(int(record["offset"]) + int(record["size"]), int(record["name_size"]))
    return os.fsdecode(content.tobytes())


def corrupt_records(file: PixelFile, records: Records) -> Iterator[int]:
    """Which of these images are not what was written; where nobody waits for the disk, also those that it cannot give.
    Raises MachineFailure and StoppedWaiting."""
    for position, record in enumerate(records):
        place = int(record["offset"]), int(record["size"]) + int(record["name_size"])
        try:
            content = persistently(partial(file.read, *place), lambda: str(file.path))
        except OSError:
            yield position
            continue
        if zlib.crc32(content.data) != record["checksum"]:
            yield position


def ends(records: Records) -> npt.NDArray[np.uint64]:
    """Where each image, with its name, ends in its file."""
    sizes: npt.NDArray[np.uint64] = records["offset"] + records["size"] + records["name_size"]
    return sizes


def digest(content: bytes) -> str:
    """BLAKE2b of 16 bytes, as hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def digest_of_labels(labels: LabelArray) -> str:
    """`digest` of labels, int64 (n,), as unsigned integers of 32 bits."""
    return digest(labels.astype("<u4").tobytes())


def _read_index(folder: Path, split: str, manifest: Manifest, about: PackedSplit) -> Records:
    path = folder / f"{split}.index"
    try:
        content = persistently(partial(files.read_bytes, path, MAX_INDEX), lambda: str(path), may_be_missing=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {AGAIN}", key="dataset") from error
    if digest(content) != about.index or len(content) != about.images * RECORD.itemsize:
        raise UserError(f"{path} is damaged; {AGAIN}", key="dataset")
    records: Records = np.frombuffer(content, RECORD)
    if not _is_sound(records, manifest, about):
        raise UserError(f"{path} is not what `accel-train pack` writes; {AGAIN}", key="dataset")
    return records


def _is_sound(records: Records, manifest: Manifest, about: PackedSplit) -> bool:
    """Whether its records can be true: the file is not trusted."""
    end = ends(records)
    has_pixels = records["height"] > 0
    size = 3 * records["height"].astype(np.uint64) * records["width"]
    return bool(
        np.array_equal(records["offset"], np.concatenate([[0], end[:-1]]).astype(np.uint64))
        and (end[-1] if len(end) else 0) == about.size
        and (records["label"] < len(manifest.classes)).all()
        and (manifest.storage == "jpeg" or (size == records["size"])[has_pixels].all())
    )
