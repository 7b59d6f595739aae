"""Files of torch.save, of whatever origin: the one place where anything is unpickled."""

import errno
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import torch

from accel_trainer.core.numpy_numbers import NUMPY_NUMBERS
from accel_trainer.core.outage import UnsuitableFile


def load_tensors(path: Path, *, mmap: bool = False, allowed: Sequence[Any] = NUMPY_NUMBERS) -> Any:
    """Tensors and plain data on the CPU, by torch's restricted unpickler: nothing that is in the file is run.

    Of NumPy's objects, plain numbers become Python's; all others are refused as anything else is. allowed: other names
    that may be called instead, as for `torch.serialization.safe_globals`. Raises all kinds of exceptions, as damaged
    files do.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise UnsuitableFile(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        _refuse_compressed(file)
    with _allowing_only(allowed):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def tensors_in(content: bytes) -> Any:
    """As `load_tensors`, of what was read already."""
    _refuse_compressed(io.BytesIO(content))
    with _allowing_only(NUMPY_NUMBERS):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


_LOADING = Lock()


@contextmanager
def _allowing_only(allowed: Sequence[Any]) -> Iterator[None]:
    """What libraries have allowed the unpickler beside torch's own, such as Accelerate NumPy's arrays, is not allowed
    meanwhile: it would be called in place of our stand-ins."""
    with _LOADING:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            with torch.serialization.safe_globals(list(allowed)):
                yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)


def _refuse_compressed(file: BinaryIO) -> None:
    """torch.save does not compress, but torch.load unpacks what somebody else has compressed: 10 MB can be 10 GB."""
    if file.read(4) != b"PK\x03\x04":
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > file.seek(0, io.SEEK_END):
        raise ValueError(f"a compressed archive, of {unpacked:,} bytes when unpacked; torch.save does not compress")
