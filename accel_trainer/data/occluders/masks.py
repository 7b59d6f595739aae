"""Masks of occluders: what they are, and those of one occluders.pt.

A mask is alpha: 255 covers the image. Masks of one channel are filled with a color where they are used; those of four
(RGBA) have a texture of their own. No file is read as a whole, and none stays mapped into memory: of a disk that is
away a mapped file would be a signal that ends the process. Each mask is read where it is used, from the pages of the
system, which all processes of a machine share.
"""

import hashlib
import json
import logging
import math
import pickle
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.core.cache import cached
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import cache_folder, read_text
from accel_trainer.core.outage import MachineFailure, StoppedWaiting, persistently
from accel_trainer.core.random_access import RandomAccessFile
from accel_trainer.core.safe_torch import checksum_of_tensors, load_tensors, offsets_in_file
from accel_trainer.core.text import first_line, listed
from accel_trainer.data.decode import MAX_PIXELS
from accel_trainer.data.listing import Canceled, Numbers, file_checksum

log = logging.getLogger(__name__)

# How many masks of a level are looked at when it is opened.
SAMPLED_MASKS = 50
# Of what the cache has of a file, and the most bytes of that.
VERSION, MAX_CHECKSUM = 1, 20
LITTLE_ABOVE_ONE = 1.1

_UNUSABLE_SHAPE = "wanted (N, H, W), (N, 1, H, W), (N, 4, H, W) or (N, 1, 4, H, W)"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """Where the bytes of a mask are: uint8 of this shape, (1 or 4, h, w), in a file from an offset on."""

    file: RandomAccessFile
    offset: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many bytes."""
        return math.prod(self.shape)


class Masks(Protocol):
    """The masks of one form at one visibility; `read` may be called from many threads at once."""

    @property
    def num_channels(self) -> int:
        """1 (alpha) or 4 (RGBA, not premultiplied)."""
        ...

    @property
    def files(self) -> Sequence[str]:
        """Names of the files that they are in."""
        ...

    def __len__(self) -> int: ...

    def marks(self, is_canceled: Callable[[], bool]) -> Numbers:
        """A checksum of the content of each file. Raises Canceled; UserError for a file that cannot be read."""
        ...

    def read(self, index: int) -> Tensor:
        """The mask of this index, 0 to len - 1: a uint8 tensor of shape (1 or 4, h, w), the caller's own.

        All masks of a level have one size. Raises UserError where a PNG cannot be read.
        """
        ...

    def place(self, index: int) -> "Place | None":
        """Where a file has the bytes that `read` gives; None where it has others, or where `read` says what is wrong
        with it."""
        ...


# -- occluders.pt -----------------------------------------------------------------------------------------------


class TensorMasks:
    """The masks of an occluders.pt, which stays on disk until they are read.

    Raises UserError when the file is not what the restricted unpickler of torch reads, or is not of masks.
    """

    def __init__(self, path: Path) -> None:
        loaded = _load(path)
        self.path, self.files = path, [path.name]
        self._checksum: int | None = None
        try:
            self._parts = _open_parts(path, _as_parts(loaded))
        except ValueError as error:
            raise UserError(f"{path} {error}", key="Occlusion.occluder_dir") from error
        self._ends = list(accumulate(len(part) for part in self._parts))
        self.num_channels: int = self._parts[0].num_channels

    def __len__(self) -> int:
        return self._ends[-1]

    def marks(self, is_canceled: Callable[[], bool]) -> Numbers:
        """A checksum of what is in the file, of int64 (1,). Raises Canceled and UserError.

        All of the file is read for it, once by a machine: the cache has it for each state of the file."""
        if self._checksum is None:
            try:
                self._checksum = _known_checksum(self.path, is_canceled)
            except OSError as error:
                reason = f"cannot read {self.path}: {error.strerror}"
                raise UserError(reason, key="Occlusion.occluder_dir") from error
        return np.array([self._checksum], dtype=np.int64)

    def read(self, index: int) -> Tensor:
        """uint8 (1 or 4, h, w), a copy."""
        part, position = self._part(index)
        return part.read(position)

    def place(self, index: int) -> Place | None:
        """Where it is stored as uint8 from 0 to 255."""
        part, position = self._part(index)
        return part.place(position)

    def _part(self, index: int) -> tuple["_Part", int]:
        number = bisect_right(self._ends, index)
        part = self._parts[number]
        return part, index - (self._ends[number] - len(part))

    def sampled_coverage(self) -> float:
        """Mean alpha, 0 to 1, of some masks spread evenly over all."""
        return mean_coverage(self.read(i)[-1].numpy() for i in spread(len(self), SAMPLED_MASKS))


def _known_checksum(path: Path, is_canceled: Callable[[], bool]) -> int:
    """That of the cache, where it has one of the file as it is now; without a cache it is found anew. Raises Canceled
    and OSError."""

    def note(aside: Path) -> None:
        aside.write_text(f"{_checksum(path, is_canceled)}\n")

    about = persistently(path.stat, lambda: str(path))
    state = [str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
    name = hashlib.blake2b(json.dumps([VERSION, *state]).encode(), digest_size=16).hexdigest()
    try:
        return int(read_text(cached(cache_folder() / "checksums" / name, note), MAX_CHECKSUM))
    except (UserError, OSError, ValueError):
        return _checksum(path, is_canceled)


def _checksum(path: Path, is_canceled: Callable[[], bool]) -> int:
    """Of the tensors in a file; of all that it has where torch has written no checksums. Raises Canceled and
    OSError."""

    def check() -> None:
        if is_canceled():
            raise Canceled

    checksum = persistently(partial(checksum_of_tensors, path, check), lambda: str(path))
    return file_checksum(path, is_canceled) if checksum is None else checksum


def _load(path: Path) -> object:
    """What the file holds, mapped into memory; in a format that cannot be mapped, read."""
    try:
        try:
            return persistently(partial(load_tensors, path, mmap=True), lambda: str(path), may_be_missing=True)
        except RuntimeError:
            loaded = persistently(partial(load_tensors, path), lambda: str(path), may_be_missing=True)
    except pickle.UnpicklingError as error:
        # torch's own message says how to run the code all the same.
        reason = "holds more than plain tensors, which is not loaded since it could run code, or is damaged"
        raise UserError(f"{path} {reason}; save it with torch.save(masks)", key="Occlusion.occluder_dir") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}", key="Occlusion.occluder_dir") from error
    except (MachineFailure, StoppedWaiting):
        raise
    except Exception as error:  # damaged files fail in every way there is
        raise UserError(
            f"{path} is not a file of torch.save: {first_line(error)}", key="Occlusion.occluder_dir"
        ) from error
    log.warning("%s cannot be mapped, so each process reads it whole; save it anew with torch.save(masks)", path)
    return loaded


def _as_parts(loaded: object) -> list[Tensor]:
    """Views of what was loaded, each of shape (n, 1 or 4, h, w) and any dtype. Raises ValueError."""
    tensors = list(loaded) if isinstance(loaded, list | tuple) else [loaded]
    if len(tensors) > 1 and all(isinstance(t, Tensor) and t.ndim == 3 and len(t) == 4 for t in tensors):
        raise ValueError("is a list of (4, H, W): four masks each, or one with a texture? save one tensor instead")
    parts = [_as_masks(tensor) for tensor in tensors]
    parts = [part for part in parts if part.numel()]
    if not parts:
        raise ValueError("has no masks in it")
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"has masks of different shapes: {listed(str(shape) for shape in sorted(shapes))}")
    return parts


def _as_masks(tensor: object) -> Tensor:
    """A view of shape (n, 1 or 4, h, w). Raises ValueError."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"holds a {type(tensor).__name__}, not a tensor of masks")
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"is a tensor of layout {tensor.layout} on {tensor.device}, not a plain one")
    if tensor.dtype not in (torch.uint8, torch.bool) and not tensor.dtype.is_floating_point:
        raise ValueError(f"is {tensor.dtype}; wanted uint8 from 0 to 255, float from 0 to 1, or bool")
    masks = tensor.detach()
    if masks.ndim == 3:
        masks = masks[:, None]
    elif masks.ndim == 5 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.ndim != 4 or masks.shape[1] not in (1, 4):
        raise ValueError(f"has shape {tuple(tensor.shape)}; {_UNUSABLE_SHAPE}")
    if masks.shape[-2] * masks.shape[-1] > MAX_PIXELS:  # a few bytes on disk can stand for as many as one likes
        raise ValueError(f"has masks of {masks.shape[-2]:,} x {masks.shape[-1]:,} pixels, which are too many")
    return masks


@dataclass(frozen=True)
class _Stored:
    """Masks of one dtype and shape that lie in a file one after the other, from an offset on."""

    file: RandomAccessFile
    offset: int
    dtype: torch.dtype
    shape: torch.Size

    def place(self, index: int) -> Place:
        size = self.shape.numel() * self.dtype.itemsize
        return Place(self.file, self.offset + index * size, tuple(self.shape))

    def __call__(self, index: int) -> Tensor:
        """One of them. Raises UserError where nobody waits for the disk."""
        content = read_at(self.file, self.place(index).offset, self.shape.numel() * self.dtype.itemsize)
        return torch.from_numpy(content).view(self.dtype).view(self.shape)


class _Part:
    """Some of the masks of a file. stored: gives one as it is in the file, in memory that is the caller's own. Raises
    ValueError for numbers of another range."""

    def __init__(self, masks: Tensor, stored: "_Stored | Callable[[int], Tensor]") -> None:
        self._num, self.num_channels, self._stored = len(masks), masks.shape[1], stored
        self._full = _full(masks.dtype, [stored(index)[-1] for index in spread(len(masks), SAMPLED_MASKS)])

    def __len__(self) -> int:
        return self._num

    def read(self, index: int) -> Tensor:
        """uint8 (1 or 4, h, w), a copy. index: among these masks."""
        return _to_uint8(self._stored(index), self._full)

    def place(self, index: int) -> Place | None:
        """Where that is, if it is just as it is in the file."""
        if isinstance(self._stored, _Stored) and self._stored.dtype == torch.uint8 and self._full == 255:
            return self._stored.place(index)
        return None


def _open_parts(path: Path, parts: Sequence[Tensor]) -> list[_Part]:
    """The masks of a file, to be read from it where it is known how they lie there. Raises ValueError."""
    offsets = offsets_in_file(path, parts) if all(part.is_contiguous() for part in parts) else None
    if offsets is None:
        return [_Part(part, partial(_copied, part)) for part in parts]
    file = RandomAccessFile(path)
    return [
        _Part(part, _Stored(file, offset, part.dtype, part.shape[1:]))
        for part, offset in zip(parts, offsets, strict=True)
    ]


def _copied(masks: Tensor, index: int) -> Tensor:
    return torch.from_numpy(np.array(masks[index].numpy(), order="C"))


def read_at(file: RandomAccessFile, offset: int, size: int) -> Pixels:
    """uint8 (size,). Raises UserError where nobody waits for the disk."""
    try:
        return persistently(partial(file.read, offset, size), lambda: str(file.path))
    except OSError as error:
        raise UserError(f"cannot read {file.path}: {error.strerror}", key="Occlusion.occluder_dir") from error


def _full(dtype: torch.dtype, alphas: Sequence[Tensor]) -> int:
    """The value that stands for 255: 1 or 255, by some alphas. Raises ValueError for another range."""
    if dtype == torch.bool:
        return 1
    ranges = [torch.aminmax(alpha) for alpha in alphas]
    lows, highs = ([float(value) for value in values] for values in zip(*ranges, strict=True))
    if not all(low >= 0 and high <= 255 for low, high in zip(lows, highs, strict=True)):
        raise ValueError(f"is {dtype} with values outside of 0 to 255")
    # A float that was resized may be a little above 1.
    return 1 if max(highs) <= LITTLE_ABOVE_ONE else 255


def _to_uint8(mask: Tensor, full: int) -> Tensor:
    """The mask itself where it is uint8 from 0 to 255."""
    if mask.dtype == torch.uint8 and full == 255:
        return mask
    return mask.to(torch.float32).mul(255 / full).round_().clamp_(0, 255).to(torch.uint8).contiguous()


# -- samples ---------------------------------------------------------------------------------------------------


def spread(length: int, at_most: int) -> list[int]:
    """Up to `at_most` indices below `length`, evenly spread, the first and the last among them."""
    indices: list[int] = np.linspace(0, length - 1, min(length, at_most)).round().astype(int).tolist()
    return indices


def mean_coverage(alphas: Iterable[Pixels]) -> float:
    """Mean of some alphas of uint8, 0 to 1."""
    return float(np.mean([alpha.mean() for alpha in alphas])) / 255
