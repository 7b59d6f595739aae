"""Rows cut out of JPEGs, of which only what is needed is decoded: see jpeg.c."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from accel_trainer.data.native.calls import Cuts, address_of, refuse, target
from accel_trainer.data.native.images import Images
from accel_trainer.data.native.library import Kernel, UnusableKernel

# As jpeg.c has them.
_FUNCTIONS = (
    "jpeg_std_error",
    "jpeg_CreateDecompress",
    "jpeg_read_header",
    "jpeg_has_multiple_scans",
    "jpeg_start_decompress",
    "jpeg_crop_scanline",
    "jpeg_skip_scanlines",
    "jpeg_read_scanlines",
    "jpeg_destroy_decompress",
    "jpeg_resync_to_restart",
)
# Of `Jpegs.table`.
ADDRESS, SIZE, HEIGHT, WIDTH = range(4)


class JpegLibrary(ctypes.Structure):
    """The functions of a libjpeg-turbo that is loaded."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _FUNCTIONS),
        *((name, ctypes.c_int64) for name in ("version", "size")),
    ]

    @classmethod
    def used_by(cls, kernel: Kernel, extension: Path) -> "JpegLibrary":
        """That which an extension module is linked with. Raises UnusableKernel."""
        try:
            loaded = ctypes.CDLL(str(extension))  # its functions are looked for in what it is linked with, too
            functions = [ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value for name in _FUNCTIONS]
        except (OSError, AttributeError) as error:
            raise UnusableKernel(f"{extension.name} has no libjpeg-turbo: {error}") from error
        library = cls(*functions)
        if not kernel.know_jpeg_library(ctypes.byref(library)):
            raise UnusableKernel(f"{extension.name} has a libjpeg of version {library.version}")
        return library


class Jpegs:
    """Encoded images, and what their headers say.

    table: address and size of the bytes; height and width in pixels, 0 where parts of it cannot be decoded:
    int64 (images, 4).
    """

    def __init__(self, kernel: Kernel, contents: Sequence[bytes]) -> None:
        self._contents = contents
        rows = [(address_of(np.frombuffer(content or b"\0", np.uint8)), len(content), 0, 0) for content in contents]
        self.table = np.array(rows, np.int64).reshape(-1, 4)
        kernel.jpeg_sizes(address_of(self.table), len(self.table))

    @property
    def sizes(self) -> Images:
        """Images of the same sizes, of one pixel where there is none, that have no pixels."""
        table = np.zeros((len(self.table), 6), np.int64)
        table[:, 4:] = np.maximum(self.table[:, HEIGHT:], 1)
        return Images(table, None)

    def leave_out(self, which: npt.NDArray[np.bool_]) -> None:
        """Decode nothing of some of them."""
        self.table[which, HEIGHT:] = 0

    def __len__(self) -> int:
        return len(self.table)


def cut_jpegs(
    kernel: Kernel,
    library: JpegLibrary,
    jpegs: Jpegs,
    cuts: Cuts,
    out: Tensor,
    byte_scale_and_shift: tuple[float, ...] | None,
) -> npt.NDArray[np.bool_]:
    """As `calls.cut`, of encoded images; of which of them the rows were written, bool (images,). The others are to be
    decoded whole. Raises as that."""
    is_done = np.zeros(len(jpegs), np.bool_)
    where = (*target(cuts, out, byte_scale_and_shift), address_of(is_done))
    views = len(cuts) // max(1, len(jpegs))
    images = (ctypes.byref(library), address_of(jpegs.table), len(jpegs), views)
    refuse(kernel.cut_jpegs(*images, *where, kernel.may_use_vectors))
    return is_done
