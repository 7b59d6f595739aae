"""dataset_contents.npz: checksums of the images that a run has read, of all its processes, kept with its states."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from accelerate import Accelerator

from accel_trainer.core.files import read_bytes
from accel_trainer.core.outage import UnsuitableFile, persistently
from accel_trainer.data.contents import Contents, HasContents
from accel_trainer.data.dataset import ImageDataset, Relabeled, Splits
from accel_trainer.data.listing import Numbers
from accel_trainer.run.dataset_record import DataSetRecord, damaged_record
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.identity.check import sources_of
from accel_trainer.training.identity.listing import MAX_LISTING, in_order_of_classes

# Of two processes that have read an image, one that has found a new one counts.
_IS_NEW = 2**32


@dataclass(frozen=True)
class _Watched:
    """A split whose images are compared. places: where in `contents` they are, by class; listing: digest of their
    names."""

    contents: Contents
    places: Numbers
    listing: str


def _nothing() -> None:
    """All that there is to write."""


class ContentRecord:
    """What the images of a run were when it first read them. Every process has one, and calls `share` with the others.

    It is written before each state: a run that is killed resumes with all that was known then. A split whose list of
    images is another than that of the file begins anew. Raises UserError for a damaged file.
    """

    def __init__(
        self, run: RunFolder, images: Splits, now: DataSetRecord, accelerator: Accelerator, *, accepts_changes: bool
    ) -> None:
        self._run, self._accelerator = run, accelerator
        self._splits = dict(_watched(images, now, accepts_changes))
        known = _read(run) if self._splits else {}
        for split, watched in self._splits.items():
            if known.get(f"{split}/listing", np.zeros(0)).tobytes() == watched.listing.encode():
                checksums = known.get(f"{split}/checksums", np.zeros(0))
                if checksums.shape != watched.places.shape or checksums.dtype != np.uint32:
                    raise damaged_record(run.dataset_contents)
                watched.contents.checksums[watched.places] = checksums

    def share(self) -> Callable[[], None]:
        """Every process learns what the others have read. What writes it, for rank 0: as it is known now, where there
        is anything new. That raises OSError."""
        if not self._is_any_new():
            return _nothing
        for watched in self._splits.values():
            self._share(watched.contents)
        return partial(self._write, self._arrays()) if self._accelerator.is_main_process else _nothing

    def _is_any_new(self) -> bool:
        is_new = any(bool(watched.contents.is_new.any()) for watched in self._splits.values())
        if self._accelerator.num_processes == 1:
            return is_new
        count = torch.tensor([int(is_new)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(count, reduction="sum").item())

    def _share(self, contents: Contents) -> None:
        is_new = contents.is_new.copy()  # threads read on
        if self._accelerator.num_processes > 1:
            own = contents.checksums.astype(np.int64) + _IS_NEW * is_new
            of_all = torch.from_numpy(own).to(self._accelerator.device)
            dist.all_reduce(of_all, op=dist.ReduceOp.MAX)
            merged = (of_all.cpu().numpy() % _IS_NEW).astype(np.uint32)
            read_since = contents.is_new & ~is_new
            contents.checksums[~read_since] = merged[~read_since]
        contents.is_new &= ~is_new

    def _arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for split, watched in self._splits.items():
            arrays[f"{split}/checksums"] = watched.contents.checksums[watched.places]
            arrays[f"{split}/listing"] = np.frombuffer(watched.listing.encode(), np.uint8)
        return arrays

    def _write(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        file = BytesIO()
        np.savez_compressed(file, allow_pickle=False, **arrays)
        self._run.write(self._run.dataset_contents, file.getvalue())


def _watched(images: Splits, now: DataSetRecord, accepts_changes: bool) -> Mapping[str, _Watched]:
    found = {}
    for split, source in sources_of(images).items():
        base, places = _base(source, in_order_of_classes(source))
        if isinstance(base, HasContents):
            if base.contents is None:
                base.contents = Contents(len(base.labels), accepts_changes=accepts_changes)
            found[split] = _Watched(base.contents, places, now.splits[split].digest_of_names)
    return found


def _base(source: ImageDataset, indices: Numbers) -> tuple[ImageDataset, Numbers]:
    """The source that reads the images, and which of its own they are."""
    while isinstance(source, Relabeled):
        source, indices = source.base(indices)
    return source, indices


def _read(run: RunFolder) -> dict[str, npt.NDArray[np.generic]]:
    """What is in the file; nothing where there is none. Raises UserError for a damaged one, and OSError."""
    path = run.dataset_contents
    try:
        content = persistently(lambda: read_bytes(path, MAX_LISTING), lambda: str(path), may_be_missing=True)
    except FileNotFoundError:
        return {}
    except UnsuitableFile as error:
        raise damaged_record(path) from error
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise damaged_record(path) from error
