"""Masks of occluders: those of one occluders.pt, or of a folder of PNGs.

A mask is alpha: 255 covers the image. Masks of one channel are filled with a color where they are used; those of four
(RGBA) have a texture of their own. No file is read as a whole, and none stays mapped into memory: of a disk that is
away a mapped file would be a signal that ends the process. Each mask is read where it is used, from the pages of the
system, which all processes of a machine share.
"""

import hashlib
import io
import json
import logging
import math
import pickle
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import cache_folder, cached, read_bytes, read_start
from accel_trainer.core.outage import MachineFailure, StoppedWaiting, persistently
from accel_trainer.core.random_access import RandomAccessFile
from accel_trainer.core.safe_torch import load_tensors, offsets_in_file
from accel_trainer.core.text import first_line, listed
from accel_trainer.data.decode import MAX_BYTES, MAX_PIXELS

log = logging.getLogger(__name__)

# How many masks of a level are looked at when it is opened.
SAMPLED_MASKS, SAMPLED_PNGS = 50, 20
# Of the files in the cache: another one packs anew.
VERSION = 2
LITTLE_ABOVE_ONE = 1.1

_UNUSABLE_SHAPE = "wanted (N, H, W), (N, 1, H, W), (N, 4, H, W) or (N, 1, 4, H, W)"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_TYPES_WITH_ALPHA = (4, 6)

Pixels = npt.NDArray[np.uint8]


class Masks(Protocol):
    """The masks of one form at one visibility; `read` may be called from many threads at once."""

    @property
    def num_channels(self) -> int:
        """1 (alpha) or 4 (RGBA, not premultiplied)."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Tensor:
        """The mask of this index, 0 to len - 1: a uint8 tensor of shape (1 or 4, h, w), the caller's own.

        All masks of a level have one size. Raises UserError where a PNG cannot be read.
        """
        ...


# -- occluders.pt -----------------------------------------------------------------------------------------------


class TensorMasks:
    """The masks of an occluders.pt, which stays on disk until they are read.

    Raises UserError when the file is not what the restricted unpickler of torch reads, or is not of masks.
    """

    def __init__(self, path: Path) -> None:
        loaded = _load(path)
        try:
            self._parts = _open_parts(path, _as_parts(loaded))
        except ValueError as error:
            raise UserError(f"{path} {error}", key="Occlusion.occluder_dir") from error
        self._ends = list(accumulate(len(part) for part in self._parts))
        self.num_channels: int = self._parts[0].num_channels

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: int) -> Tensor:
        """uint8 (1 or 4, h, w), a copy."""
        part = bisect_right(self._ends, index)
        return self._parts[part].read(index - (self._ends[part] - len(self._parts[part])))

    def sampled_coverage(self) -> float:
        """Mean alpha, 0 to 1, of some masks spread evenly over all."""
        return _mean_coverage(self.read(i)[-1].numpy() for i in _spread(len(self), SAMPLED_MASKS))


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


# -- PNGs -------------------------------------------------------------------------------------------------------


class _Part:
    """Some of the masks of a file. stored: gives one as it is in the file. Raises ValueError for numbers of another
    range."""

    def __init__(self, masks: Tensor, stored: Callable[[int], Tensor]) -> None:
        self._num, self.num_channels, self._stored = len(masks), masks.shape[1], stored
        self._full = _full(masks.dtype, [stored(index)[-1] for index in _spread(len(masks), SAMPLED_MASKS)])

    def __len__(self) -> int:
        return self._num

    def read(self, index: int) -> Tensor:
        """uint8 (1 or 4, h, w), a copy. index: among these masks."""
        return _to_uint8(self._stored(index), self._full)


def _open_parts(path: Path, parts: Sequence[Tensor]) -> list[_Part]:
    """The masks of a file, to be read from it where it is known how they lie there. Raises ValueError."""
    offsets = offsets_in_file(path, parts) if all(part.is_contiguous() for part in parts) else None
    if offsets is None:
        return [_Part(part, part.__getitem__) for part in parts]
    file = RandomAccessFile(path)
    return [
        _Part(part, partial(_read_stored, file, offset, part.dtype, part.shape[1:]))
        for part, offset in zip(parts, offsets, strict=True)
    ]


def _read_stored(file: RandomAccessFile, offset: int, dtype: torch.dtype, shape: torch.Size, index: int) -> Tensor:
    """One mask of those that begin at an offset. Raises UserError where nobody waits for the disk."""
    size = shape.numel() * dtype.itemsize
    content = _read_at(file, offset + index * size, size)
    return torch.from_numpy(content).view(dtype).view(shape)


def _read_at(file: RandomAccessFile, offset: int, size: int) -> Pixels:
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
    """A copy: to write to it must not write to what was loaded."""
    if mask.dtype == torch.uint8 and full == 255:
        return torch.from_numpy(np.array(mask.numpy(), order="C"))
    return mask.to(torch.float32).mul(255 / full).round_().clamp_(0, 255).to(torch.uint8).contiguous()


# -- PNGs -------------------------------------------------------------------------------------------------------


class PngMasks:
    """The PNGs of one folder, decoded once into a file of the cache, at the first `read`.

    RGBA and LA make masks of four channels, all else (L, 1, P, RGB) is alpha. Where both are there, all have four
    channels, the alpha-only ones with a black texture. PNGs of other sizes get the size of the first.
    Raises UserError when one is not a PNG.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self._names = names
        self._packed: _PackedMasks | None = None
        with_alpha = [_has_alpha(folder / name) for name in names]
        self.num_channels = 4 if any(with_alpha) else 1

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> Tensor:
        """uint8 (1 or 4, h, w), a copy. Raises UserError for a PNG that cannot be read."""
        if self._packed is None:
            # Two threads may both come here: they find the same file.
            path = cached(self._cache_file(), self._pack)
            self._packed = _PackedMasks(path)
        return self._packed.read(index)

    def sampled_coverage(self) -> float:
        """Mean alpha, 0 to 1, of some masks spread evenly over all."""
        return _mean_coverage(self._decode(self._names[i])[-1] for i in _spread(len(self), SAMPLED_PNGS))

    def _cache_file(self) -> Path:
        """Another one for every state of the folder, so that what has changed is packed anew."""
        try:
            stats = [persistently((self.folder / name).stat, lambda: str(self.folder)) for name in self._names]
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}", key="Occlusion.occluder_dir") from error
        files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(self._names, stats, strict=True)]
        content = json.dumps([VERSION, str(self.folder.resolve()), files]).encode()
        return cache_folder() / "occluders" / f"{hashlib.blake2b(content, digest_size=16).hexdigest()}.npy"

    def _pack(self, aside: Path) -> None:
        log.info("packing %d occluders of %s into the cache, once", len(self), self.folder)
        channels, height, width = self._decode(self._names[0]).shape
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self), channels, height, width)}
        try:
            # Written as a file, not through a map: a disk that is full would kill the process there.
            with aside.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for name in self._names:
                    file.write(self._decode(name, size=(width, height)).tobytes())
        except OSError as error:
            raise UserError(f"cannot write to {aside.parent}: {error.strerror}; set XDG_CACHE_HOME") from error

    def _decode(self, name: str, size: tuple[int, int] | None = None) -> Pixels:
        """uint8 of shape (num_channels, h, w); resized to `size` (w, h) where it is another one."""
        path = self.folder / name
        try:
            content = persistently(partial(read_bytes, path, MAX_BYTES), lambda: str(path), may_be_missing=True)
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                resized = image if size in (None, image.size) else image.resize(size, Image.Resampling.NEAREST)
                return _alpha_or_rgba(resized, self.num_channels)
        except (MachineFailure, StoppedWaiting, MemoryError):
            raise
        except Exception as error:  # Pillow's readers of damaged files fail in every way there is
            raise UserError(f"Occlusion.occluder_dir: cannot read {path}: {first_line(error)}") from error


class _PackedMasks:
    """A file of the cache, as NumPy's .npy: uint8 of shape (n, 1 or 4, h, w)."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            (_, *self._shape), _, _ = np.lib.format.read_array_header_1_0(file)
            self._begin = file.tell()
        self._file = RandomAccessFile(path)

    def read(self, index: int) -> Tensor:
        """uint8 (1 or 4, h, w), a copy. Raises UserError."""
        size = math.prod(self._shape)
        return torch.from_numpy(_read_at(self._file, self._begin + index * size, size)).view(self._shape)


def _has_alpha(path: Path) -> bool:
    """Whether a PNG is of mode LA or RGBA, from its first bytes. Raises UserError if it is not a PNG."""
    try:
        start = persistently(partial(read_start, path, 26), lambda: str(path), may_be_missing=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", key="Occlusion.occluder_dir") from error
    if len(start) < 26 or not start.startswith(_PNG_START):
        raise UserError(f"{path} is not a PNG; replace or delete it", key="Occlusion.occluder_dir")
    return start[25] in _PNG_TYPES_WITH_ALPHA


def _alpha_or_rgba(image: Image.Image, num_channels: int) -> Pixels:
    """uint8 of shape (num_channels, h, w)."""
    if image.mode in ("LA", "RGBA"):
        return np.moveaxis(np.asarray(image.convert("RGBA")), -1, 0)
    if image.mode.startswith("I"):
        # 16-bit gray: Pillow's own conversion would make nearly all of it white.
        alpha = (np.asarray(image, dtype=np.int64) // 257).astype(np.uint8)
    else:
        alpha = np.asarray(image.convert("L"))
    rgba = np.zeros((num_channels, *alpha.shape), np.uint8)
    rgba[-1] = alpha
    return rgba


# -- samples ---------------------------------------------------------------------------------------------------


def _spread(length: int, at_most: int) -> list[int]:
    """Up to `at_most` indices below `length`, evenly spread, the first and the last among them."""
    indices: list[int] = np.linspace(0, length - 1, min(length, at_most)).round().astype(int).tolist()
    return indices


def _mean_coverage(alphas: Iterable[Pixels]) -> float:
    return float(np.mean([alpha.mean() for alpha in alphas])) / 255
