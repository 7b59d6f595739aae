"""Masks of occluders in a folder of PNGs, decoded once into a file of the cache."""

import hashlib
import io
import json
import logging
import math
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from accel_trainer.core.cache import cached
from accel_trainer.core.disk_calls import never
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import cache_folder, read_bytes, read_start
from accel_trainer.core.outage import persistently
from accel_trainer.core.random_access import RandomAccessFile
from accel_trainer.core.text import first_line
from accel_trainer.data.decode import MAX_BYTES
from accel_trainer.data.listing import Canceled, Numbers
from accel_trainer.data.occluders.masks import Pixels, Place, mean_coverage, read_at, spread

log = logging.getLogger(__name__)

# How many masks of a level are looked at when it is opened.
SAMPLED_PNGS = 20
# Of the files in the cache: another one packs anew.
VERSION = 4

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_TYPES_WITH_ALPHA = (4, 6)


class PngMasks:
    """The PNGs of one folder, decoded once into a file of the cache, at the first `read`.

    RGBA and LA make masks of four channels, all else (L, 1, P, RGB) is alpha. Where both are there, all have four
    channels, the alpha-only ones with a black texture. PNGs of other sizes get the size of the first.
    Raises UserError when one is not a PNG.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.files = list(names)
        self._packed: _PackedMasks | None = None
        with_alpha = [_has_alpha(folder / name) for name in names]
        self.num_channels = 4 if any(with_alpha) else 1

    def __len__(self) -> int:
        return len(self.files)

    def marks(self, is_canceled: Callable[[], bool]) -> Numbers:
        """CRC-32 of each PNG as it was when it was decoded, int64 (n,). Raises Canceled and UserError."""
        return self._pack(is_canceled).checksums

    def read(self, index: int) -> Tensor:
        """uint8 (1 or 4, h, w), a copy. Raises UserError for a PNG that cannot be read."""
        return self._pack(never).read(index)

    def place(self, index: int) -> Place:
        """Where it is in the file of the cache. Raises UserError for a PNG that cannot be read."""
        return self._pack(never).place(index)

    def _pack(self, is_canceled: Callable[[], bool]) -> "_PackedMasks":
        if self._packed is None:
            # Two threads may both come here: they find the same file.
            path = cached(self._cache_file(), partial(self._pack_into, is_canceled))
            self._packed = _PackedMasks(path)
        return self._packed

    def sampled_coverage(self) -> float:
        """Mean alpha, 0 to 1, of some masks spread evenly over all."""
        names = [self.files[index] for index in spread(len(self), SAMPLED_PNGS)]
        return mean_coverage(self._decode(self._content(name), name)[-1] for name in names)

    def _cache_file(self) -> Path:
        """Another one for every state of the folder, so that what has changed is packed anew, also where it was given
        the times of what was there before."""
        try:
            stats = [persistently((self.folder / name).stat, lambda: str(self.folder)) for name in self.files]
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}", key="Occlusion.occluder_dir") from error
        files = [
            (name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for name, stat in zip(self.files, stats, strict=True)
        ]
        content = json.dumps([VERSION, str(self.folder.resolve()), files]).encode()
        return cache_folder() / "occluders" / f"{hashlib.blake2b(content, digest_size=16).hexdigest()}.npy"

    def _pack_into(self, is_canceled: Callable[[], bool], aside: Path) -> None:
        log.info("packing %d occluders of %s into the cache, once", len(self), self.folder)
        channels, height, width = self._decode(self._content(self.files[0]), self.files[0]).shape
        checksums = []
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self), channels, height, width)}
        try:
            # Written as a file, not through a map: a disk that is full would kill the process there.
            with aside.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for name in self.files:
                    if is_canceled():
                        raise Canceled
                    content = self._content(name)
                    checksums.append(zlib.crc32(content))
                    file.write(self._decode(content, name, size=(width, height)).tobytes())
                file.write(np.array(checksums, np.int64).tobytes())
        except OSError as error:
            raise UserError(f"cannot write to {aside.parent}: {error.strerror}; set XDG_CACHE_HOME") from error

    def _content(self, name: str) -> bytes:
        path = self.folder / name
        try:
            return persistently(partial(read_bytes, path, MAX_BYTES), lambda: str(path), may_be_missing=True)
        except OSError as error:
            raise UserError(f"Occlusion.occluder_dir: cannot read {path}: {first_line(error)}") from error

    def _decode(self, content: bytes, name: str, size: tuple[int, int] | None = None) -> Pixels:
        """uint8 of shape (num_channels, h, w); resized to `size` (w, h) where it is another one."""
        try:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                resized = image if size in (None, image.size) else image.resize(size, Image.Resampling.NEAREST)
                return _alpha_or_rgba(resized, self.num_channels)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's readers of damaged files fail in every way there is
            where = f"Occlusion.occluder_dir: cannot read {self.folder / name}"
            raise UserError(f"{where}: {first_line(error)}") from error


class _PackedMasks:
    """A file of the cache: NumPy's .npy of masks, uint8 of shape (n, 1 or 4, h, w), and after it a CRC-32 of the file
    of each, int64 of shape (n,)."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            (number, *self._shape), _, _ = np.lib.format.read_array_header_1_0(file)
            self._begin = file.tell()
            self._checksums_begin = self._begin + number * math.prod(self._shape)
        self._file = RandomAccessFile(path)

    @cached_property
    def checksums(self) -> Numbers:
        """int64 (n,). Raises UserError."""
        content = read_at(self._file, self._checksums_begin, self._file.size - self._checksums_begin)
        return content.view(np.int64)

    def read(self, index: int) -> Tensor:
        """uint8 (1 or 4, h, w), a copy. Raises UserError."""
        size = math.prod(self._shape)
        return torch.from_numpy(read_at(self._file, self.place(index).offset, size)).view(self._shape)

    def place(self, index: int) -> Place:
        """Where it is in the file."""
        return Place(self._file, self._begin + index * math.prod(self._shape), tuple(self._shape))


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
