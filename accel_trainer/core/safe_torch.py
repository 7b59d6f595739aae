"""Files of torch.save, of whatever origin: the one place where anything is unpickled."""

import errno
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import torch

from accel_trainer.core.files import MEBIBYTE
from accel_trainer.core.numpy_numbers import NUMPY_NUMBERS
from accel_trainer.core.outage import UnsuitableFile

_START_OF_ARCHIVE = b"PK\x03\x04"


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


def offsets_in_file(path: Path, mapped: Sequence[torch.Tensor]) -> list[int] | None:
    """Where in a file each of its tensors begins, in bytes; None where that cannot be told.

    mapped: all tensors of the file that are not empty, as `load_tensors` with mmap gave them: their storages lie in
    memory as they do in the file.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in mapped}
    if not zipfile.is_zipfile(path):  # as torch.save once wrote it, which is never mapped
        return None
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size and _is_storage(entry.filename)]
        records = sorted((_begin_of_content(file, entry), entry.file_size) for entry in entries)
    in_memory = sorted(storages.items())
    if [size for _, size in in_memory] != [size for _, size in records]:
        return None
    distances = {pointer - begin for (pointer, _), (begin, _) in zip(in_memory, records, strict=True)}
    if len(distances) != 1:
        return None
    (start_of_file,) = distances
    return [tensor.data_ptr() - start_of_file for tensor in mapped]


def checksum_of_tensors(path: Path, check: Callable[[], None] = lambda: None) -> int | None:
    """A CRC-32 of all tensors in a file of torch.save, as they are now. It is that of the checksums that torch has
    written into the file, unless its tensors were written over, as through a map of it, or are damaged.

    check: is called again and again meanwhile, and may raise. None for a file without such checksums: files that torch
    once wrote, or without `torch.serialization.set_crc32_options`. Raises OSError.
    """
    with path.open("rb") as file:
        if file.read(4) != _START_OF_ARCHIVE:
            return None
        try:
            with zipfile.ZipFile(file) as archive:
                entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        except zipfile.BadZipFile as error:
            if isinstance(error.__context__, OSError):  # the disk has not said what is there
                raise error.__context__ from error
            return None
        tensors = [
            (name, entry)
            for name, entry in sorted(entries.items())
            if name == "data.pkl" or _is_storage(entry.filename)
        ]
        if not tensors or any(entry.file_size and not entry.CRC for _, entry in tensors):
            return None
        held = [(name, entry.file_size, _checksum_of(file, entry, check)) for name, entry in tensors]
    return zlib.crc32(repr(held).encode())


def _checksum_of(file: BinaryIO, entry: zipfile.ZipInfo, check: Callable[[], None]) -> int:
    """CRC-32 of what is stored, which torch does not compress."""
    checksum, left = 0, entry.compress_size
    file.seek(_begin_of_content(file, entry))
    while left and (content := file.read(min(left, MEBIBYTE))):
        check()
        checksum, left = zlib.crc32(content, checksum), left - len(content)
    return checksum


def _is_storage(name: str) -> bool:
    """Whether a name in the archive of a torch.save is that of the numbers of tensors, such as archive/data/0."""
    return name.count("/") == 2 and name.split("/")[1] == "data"


def _begin_of_content(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """A local header has 30 bytes, of which the last four are the lengths of the name and of what else follows it."""
    file.seek(entry.header_offset + 26)
    lengths: tuple[int, int] = struct.unpack("<HH", file.read(4))
    return entry.header_offset + 30 + sum(lengths)


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
    if file.read(4) != _START_OF_ARCHIVE:
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > file.seek(0, io.SEEK_END):
        raise ValueError(f"a compressed archive, of {unpacked:,} bytes when unpacked; torch.save does not compress")
