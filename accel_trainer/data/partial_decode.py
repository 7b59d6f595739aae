"""Rows of a batch from JPEGs of which only what is cut out is decoded.

That takes the compiled kernel (accel_trainer.data.native) and the libjpeg-turbo that decodes whole images here anyway:
torchvision's, or Pillow's where torchvision has none. It gives the same bits, which is tried on a small image before it
is used. Progressive images, images in CMYK and damaged files are decoded whole, by `decode`.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL._imaging
import torch
from PIL import Image
from torch import Tensor

from accel_trainer.data.decode import MAX_PIXELS, decode, torchvision_decodes
from accel_trainer.data.native import library
from accel_trainer.data.native.calls import Cuts
from accel_trainer.data.native.images import Images
from accel_trainer.data.native.jpegs import HEIGHT, WIDTH, JpegLibrary, Jpegs, cut_jpegs
from accel_trainer.data.native.library import Kernel, UnusableKernel

# What is tried: (top, left) of squares of SIDE pixels, inside and at the borders of an image of (height, width).
_TRIED = ((0, 0), (17, 22), (33, 5), (38, 50))
_SIDE, _HEIGHT, _WIDTH = 24, 62, 74


@dataclass(frozen=True)
class PartialDecoder:
    """The kernel, and the library that it decodes with."""

    kernel: Kernel
    library: JpegLibrary

    def cut(
        self,
        contents: Sequence[bytes],
        cuts: Callable[[Images], Cuts],
        out: Tensor,
        byte_scale_and_shift: tuple[float, ...] | None,
    ) -> npt.NDArray[np.bool_]:
        """Write the rows of encoded images, as `calls.cut`; of which they were written, bool (images,). The others are
        for `decode`.

        cuts: what is cut out of images of these sizes.
        """
        jpegs = Jpegs(self.kernel, contents)
        jpegs.leave_out(jpegs.table[:, HEIGHT] * jpegs.table[:, WIDTH] > MAX_PIXELS)
        if not jpegs.table[:, HEIGHT].any():
            return np.zeros(len(contents), np.bool_)
        return cut_jpegs(self.kernel, self.library, jpegs, cuts(jpegs.sizes), out, byte_scale_and_shift)


def partial_decoder() -> PartialDecoder | None:
    """None where JPEGs are decoded whole."""
    return _found()[0]


def state() -> str:
    """What is used, or why nothing is."""
    return _found()[1]


@cache
def _found() -> tuple[PartialDecoder | None, str]:
    return find()


def find() -> tuple[PartialDecoder | None, str]:
    """As `partial_decoder` and `state`, looked for and tried once more."""
    kernel = library.kernel()
    if kernel is None:
        return None, library.state()
    try:
        found = PartialDecoder(kernel, JpegLibrary.used_by(kernel, extension()))
        if not _gives_same_pixels(found):
            raise UnusableKernel("its libjpeg-turbo gives other pixels for parts of images")
    except UnusableKernel as error:
        return None, str(error)
    return found, library.COMPILED


def extension() -> Path:
    """The extension module whose library decodes JPEGs in `decode`. Raises UnusableKernel."""
    if not torchvision_decodes():
        return Path(PIL._imaging.__file__)
    loaded = [Path(path) for path in torch.ops.loaded_libraries]
    image = [path for path in loaded if path.parent.name == "torchvision" and path.name.startswith("image")]
    if not image:
        raise UnusableKernel("torchvision has loaded no library for images")
    return image[0]


def _gives_same_pixels(found: PartialDecoder) -> bool:
    pixels = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling=subsampling)
        whole, jpegs = decode(file.getvalue()), Jpegs(found.kernel, [file.getvalue()])
        for top, left in _TRIED:
            ours = torch.empty(1, 3, _SIDE, _SIDE, dtype=torch.uint8)
            as_it_is: Cuts = np.array([[top, left, _SIDE, _SIDE, _SIDE, _SIDE, 0, 0, 0]], np.int64)
            is_done = cut_jpegs(found.kernel, found.library, jpegs, as_it_is, ours, None)
            if not is_done.all() or not torch.equal(ours[0], whole[:, top : top + _SIDE, left : left + _SIDE]):
                return False
    return True
