"""Files that are written piece by piece: no model is in memory once more for being packed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO

import torch
from torch import Tensor

from accel_trainer.core.disk_calls import watched

# In the order in which the safetensors library lays tensors out, those of the last first. Older torch has not all.
_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
NAMES = {getattr(torch, of_torch): name for of_torch, name in _NAMES.items() if hasattr(torch, of_torch)}
_RANKS = {dtype: rank for rank, dtype in enumerate(NAMES)}


def packed(weights: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """A file of safetensors, in pieces: of each tensor, on whatever device, the memory itself where it can be.

    Laid out as safetensors.torch.save does (https://github.com/huggingface/safetensors#format), but for the header,
    whose keys are sorted: the library writes metadata in the order of a hash map, another one in every process.
    A header is its length (8 bytes, little-endian), JSON, and spaces up to a multiple of 8 bytes. about: its metadata.
    """
    in_order = sorted(weights.items(), key=lambda item: (-_RANKS[item[1].dtype], item[0].encode()))
    yield _header(in_order, about)
    for _, tensor in in_order:
        yield _bytes_of(tensor)


def _header(in_order: list[tuple[str, Tensor]], about: Mapping[str, str] | None) -> bytes:
    entries: dict[str, object] = {} if about is None else {"__metadata__": dict(about)}
    start = 0
    for name, tensor in in_order:
        end = start + tensor.numel() * tensor.itemsize
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    header = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _bytes_of(tensor: Tensor) -> memoryview:
    contiguous = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()
    return contiguous.reshape(-1).view(torch.uint8).numpy().data


class CheckedFile:
    """A file that is written, and the checksum of all that it was given."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._failed: OSError | None = None

    def write(self, piece: bytes | memoryview) -> int:
        """An error is raised in the end: the C++ of torch.save, which calls this, could not pass it on."""
        self._digest.update(piece)
        self._unless_failed(lambda: self._file.write(piece))
        return len(piece)

    def flush(self) -> None:
        """As `write`; torch.save wants it."""
        self._unless_failed(self._file.flush)

    def _unless_failed(self, act: Callable[[], object]) -> None:
        if self._failed is None:
            try:
                with watched(getattr(self._file, "name", "a file")):
                    act()
            except OSError as error:
                self._failed = error

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Write them one after the other."""
        for piece in pieces:
            self.write(piece)

    def checksum(self) -> str:
        """Raises OSError where not all was written."""
        if self._failed is not None:
            raise self._failed
        return self._digest.hexdigest()
