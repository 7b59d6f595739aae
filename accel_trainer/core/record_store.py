"""Small JSON records, each a typed object in a file of its own: written whole, and read with care."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from accel_trainer.core.files import MEBIBYTE, read_bytes, write_atomic

T = TypeVar("T")


def ignored(path: Path) -> None:
    """A damaged file counts as none."""


class RecordStore(Generic[T]):
    """Records of one kind: a dataclass or a pydantic model, whose fields are the keys of the JSON object.

    A file may have keys that the kind has not, which another version wrote; a field without a default has to be there.
    Which file a record is in is the caller's affair.
    """

    def __init__(
        self, kind: type[T], damaged: Callable[[Path], T | None] = ignored, max_bytes: int = 16 * MEBIBYTE
    ) -> None:
        """damaged: what a file stands for that is there and cannot be read; by default it counts as none."""
        self._kind, self._damaged, self._max_bytes = kind, damaged, max_bytes

    def read(self, path: Path) -> T | None:
        """The record in a file; None where there is no such file."""
        try:
            return self.decode(read_bytes(path, self._max_bytes))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            return self._damaged(path)

    def write(self, path: Path, record: T, *, durable: bool = True) -> None:
        """Write a record aside and rename it into place; `durable` waits for the disk. Raises OSError."""
        write_atomic(path, self.encode(record), durable=durable)

    def encode(self, record: T) -> bytes:
        """The content of a record's file: JSON in one line."""
        return json.dumps(self._adapter.dump_python(record, mode="json")).encode() + b"\n"

    def decode(self, content: bytes) -> T:
        """The record with this content. Raises ValueError for any other content."""
        return self._adapter.validate_json(content)

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self._kind)
