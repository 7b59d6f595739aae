"""What torch.save has written, whoever did it: the one place where anything is unpickled."""

import errno
import zipfile
from pathlib import Path
from typing import Any

import torch


def load_tensors(path: Path, *, mmap: bool = False) -> Any:
    """Tensors and plain data on the CPU, by torch's restricted unpickler: nothing that is in the file is run.

    Raises all kinds of exceptions, as damaged files do.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    _refuse_compressed(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _refuse_compressed(path: Path) -> None:
    """torch.save does not compress, but torch.load unpacks what somebody else has compressed: 10 MB can be 10 GB."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if not is_zip:
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"a compressed archive, of {unpacked:,} bytes when unpacked; torch.save does not compress")
