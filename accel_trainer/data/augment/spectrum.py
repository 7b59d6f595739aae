"""The mean Fourier amplitudes of a training set: measured once, or read from a file."""

import hashlib
import json
import logging
import pickle
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.config.dataset_names import is_hugging_face, place_of
from accel_trainer.core.cache import cached
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import cache_folder, expand_home_if_any
from accel_trainer.core.outage import MachineFailure, StoppedWaiting, failure, is_file, persistently
from accel_trainer.core.processes import usable_cores
from accel_trainer.core.safe_torch import load_tensors
from accel_trainer.core.text import first_line
from accel_trainer.data.augment.geometry import CenterCrop
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.listing import Listed, Numbers, Stamped
from accel_trainer.data.shared_work import single_core_threads

log = logging.getLogger(__name__)

NAME = "mean_magnitude"
CHUNK = 64
RINGS = 4
# Of how it is measured: another one measures anew.
VERSION = 2
MEASURE = "leave it out to measure the spectrum of the training set"

Progress = Callable[[int, int], None]


def mean_spectrum(job: Job, images: ImageDataset, progress: Progress = lambda done, total: None) -> Tensor:
    """Mean amplitudes |fft2| of a job's training images in 0..1, center-cropped: float32 (3, size, size).

    Measured once, and kept in the cache folder for every job with the same images, classes and image size.
    progress: called with how many images are done, and of how many. Raises UserError.
    """
    path = cached(
        _cache_path(job, images),
        lambda aside: _measure_into(aside, job, images, progress),
        waiting=lambda: progress(0, max(1, len(images.labels))),  # another process measures it
    )
    return read_spectrum(path, job.image_size, remedy="delete it, and it is measured again")


def read_spectrum(path: Path, image_size: int, remedy: str = MEASURE) -> Tensor:
    """A spectrum from a .safetensors file, or a .pt file by the restricted unpickler: float32 (3, size, size).

    One channel stands for all three; zero frequency may be first, as fft2 has it, or in the center, as fftshift
    leaves it. Raises UserError, with a remedy.
    """
    key = "Noise.mean_magnitude_path"
    if not is_file(path):
        raise UserError(f"{key}: no file {path}; {remedy}")
    given = _read_tensor(path, remedy)
    if given.dim() not in (2, 3) or not given.is_floating_point():
        raise UserError(
            f"{key}: {path} has a tensor of shape {tuple(given.shape)} and {given.dtype}, no amplitudes; {remedy}"
        )
    spectrum = given.expand(3, -1, -1) if given.dim() == 2 or given.shape[0] == 1 else given
    if spectrum.shape != (3, image_size, image_size):
        raise UserError(
            f"{key}: {path} has the shape {tuple(given.shape)}; image_size {image_size} needs "
            f"(3, {image_size}, {image_size}); {remedy}"
        )
    if not torch.isfinite(spectrum).all() or (spectrum < 0).any():
        raise UserError(f"{key}: {path} has values that are no amplitudes: they must be 0 or more; {remedy}")
    center = image_size // 2
    if spectrum[:, center, center].sum() > spectrum[:, 0, 0].sum():
        spectrum = torch.fft.ifftshift(spectrum, dim=(-2, -1))
    return spectrum.to(torch.float32).contiguous()


def _read_tensor(path: Path, remedy: str) -> Tensor:
    where = f"Noise.mean_magnitude_path: {path}"
    try:
        given = persistently(partial(_load, path), lambda: str(path), may_be_missing=True)
    except (MachineFailure, StoppedWaiting):
        raise
    except pickle.UnpicklingError as error:
        # torch's own message says how to run the code all the same.
        raise UserError(f"{where} holds more than a tensor, which could run code, or is damaged; {remedy}") from error
    except Exception as error:  # damaged files fail in every way there is
        raise UserError(f"{where} cannot be read: {first_line(error)}; {remedy}") from error
    if isinstance(given, np.ndarray) and given.dtype.kind == "f":
        given = torch.from_numpy(given)
    if not isinstance(given, Tensor):
        raise UserError(f"{where} holds no tensor of amplitudes (called {NAME!r} if there are several); {remedy}")
    return given


def _load(path: Path) -> object:
    if path.suffix == ".safetensors":
        tensors = load(path.read_bytes())  # not mapped: a disk that goes away is an error, and no signal
        return next(iter(tensors.values())) if len(tensors) == 1 else tensors.get(NAME)
    return load_tensors(path, allowed=_NUMPY_ARRAYS)


_RECONSTRUCT = np.zeros(0).__reduce__()[0]
# What pickled arrays of floats are made of, by NumPy 2 and 1, so that files of arrays can be read as well.
_NUMPY_ARRAYS: list[Any] = [
    np.ndarray,
    np.dtype,
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
    _RECONSTRUCT,
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
]


def _cache_path(job: Job, images: ImageDataset) -> Path:
    """Another one for another place, and for other images there: by their names, the marks of their contents, and what
    changes when a file is written."""
    is_folder = not is_hugging_face(job.dataset)
    root = str(expand_home_if_any(job.data_root).resolve()) if is_folder else ""
    what = [VERSION, job.dataset, root, job.image_column, list(images.classes), len(images.labels)]
    digest = hashlib.blake2b(json.dumps(what).encode(), digest_size=8)
    digest.update(images.labels.tobytes())
    if isinstance(images, Listed):
        every = np.arange(len(images.labels))
        digest.update("\0".join(images.names(every)).encode(errors="surrogateescape"))
        digest.update(images.marks(every, lambda: False).tobytes())
    if isinstance(images, Stamped):
        digest.update(images.stamps(np.arange(len(images.labels)), lambda: False).tobytes())
    name = Path(place_of(job.dataset)).name or "images"
    return cache_folder() / "spectra" / f"{name}-{job.image_size}-{digest.hexdigest()}.safetensors"


def _measure_into(path: Path, job: Job, images: ImageDataset, progress: Progress) -> None:
    log.info("measuring the mean Fourier spectrum of %d training images, once", len(images.labels))
    spectrum = measure(images, job.image_size, progress)
    try:
        save_file({NAME: spectrum}, path, metadata={"dataset": job.dataset, "images": str(len(images.labels))})
    except SafetensorError as error:
        raise UserError(f"cannot write to {path.parent}: {error}; set XDG_CACHE_HOME to a folder with room") from error


def measure(images: ImageDataset, image_size: int, progress: Progress = lambda done, total: None) -> Tensor:
    """Mean of |fft2| over all images that are not corrupt: float32 (3, size, size)."""
    crop = CenterCrop(image_size)
    total = torch.zeros(3, image_size, image_size, dtype=torch.float64)
    count = 0
    # The sums come in order, whichever thread is first: the same images have the same spectrum to the bit.
    for chunk, (magnitudes, good) in enumerate(_sums_by_chunk(images, crop)):
        total += magnitudes
        count += good
        progress(min((chunk + 1) * CHUNK, len(images.labels)), len(images.labels))
    if not count:
        raise UserError("there is no training image that could be read to measure the spectrum", key="Noise")
    return (total / count).to(torch.float32)


def _sums_by_chunk(images: ImageDataset, crop: CenterCrop) -> Iterator[tuple[Tensor, int]]:
    def sum_of(chunk: range) -> tuple[Tensor, int]:
        total, good = torch.zeros(3, crop.image_size, crop.image_size, dtype=torch.float64), 0
        for index in chunk:
            try:
                pixels = crop.crop(persistently(partial(images.read, index), partial(images.describe, index)))
            except CorruptImage:
                continue
            except OSError as error:
                raise failure(error, partial(images.describe, index)) from error
            total += torch.fft.fft2(pixels.to(torch.float32).div_(255)).abs()
            good += 1
        return total, good

    num_images = len(images.labels)
    chunks = [range(start, min(start + CHUNK, num_images)) for start in range(0, num_images, CHUNK)]
    with single_core_threads(usable_cores(), "spectrum") as pool:
        yield from pool.map(sum_of, chunks)


class ListedSpectrum:
    """A spectrum that was read from a file, or was measured, listed as one image of one class.

    The content of a file are its amplitudes, as `read_spectrum` gives them. The last bits of what was measured are the
    processor's: of that it is listed how it was measured, and the amplitudes of some rings of frequencies, rounded.
    """

    def __init__(self, spectrum: Tensor, *, is_measured: bool) -> None:
        self.classes = [f"measured (version {VERSION})" if is_measured else "file"]
        self.labels: Numbers = np.zeros(1, np.int64)
        self._is_measured = is_measured
        self.known_marks = [_rounded(spectrum) if is_measured else zlib.crc32(spectrum.detach().numpy().tobytes())]

    def names(self, indices: Numbers) -> list[str]:
        """What there is, whatever its file is called."""
        return ["amplitudes"] * len(indices)

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """CRC-32 of the amplitudes, float32 (3, size, size); rounded ones where they were measured."""
        return np.array(self.known_marks, np.int64)[indices]

    def earlier_marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """The same, but 0 where they were measured."""
        return np.zeros(len(indices), np.int64) if self._is_measured else self.marks(indices, is_canceled)


def _rounded(spectrum: Tensor) -> int:
    """CRC-32 of the mean amplitudes of each channel in RINGS of frequencies, in steps of 2%."""
    size = spectrum.shape[-1]
    frequencies = torch.fft.fftfreq(size)
    radius = torch.hypot(frequencies[:, None], frequencies[None, :])
    ring = (radius / (radius.max() + 1e-6) * RINGS).to(torch.int64).flatten()
    sums = torch.zeros(3, RINGS, dtype=torch.float64).index_add_(1, ring, spectrum.to(torch.float64).reshape(3, -1))
    means = sums / torch.bincount(ring, minlength=RINGS).clamp(min=1)
    return zlib.crc32((means.clamp(min=1e-12).log() * 50).round().to(torch.int64).numpy().tobytes())
