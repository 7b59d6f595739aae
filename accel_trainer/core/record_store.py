"""Small JSON records, each a typed object in a file of its own: written whole, and read with care.

Anybody may have written such a file. Numbers are within what they can be, and texts cannot move a terminal's cursor or
begin a line of their own; a file with anything else in it is damaged.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, NoReturn, TypeVar

from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.files import MEBIBYTE, read_bytes, write_atomic
from accel_trainer.core.text import one_line, printable

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

T = TypeVar("T")


# Of pydantic, which is loaded when a record is read: many verbs meet none.
@dataclass(frozen=True)
class Passing:
    """Marks a text of a record that is taken as a function gives it; a ValueError of that refuses it."""

    through: Callable[[str], str]

    def __get_pydantic_core_schema__(self, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.through, handler(source))


@dataclass(frozen=True)
class Within:
    """Marks a number of a record that is neither lower nor higher than these."""

    low: float
    high: float

    def __get_pydantic_core_schema__(self, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic import Field, TypeAdapter

        finite = {"allow_inf_nan": False} if source is float else {}
        return TypeAdapter(Annotated[source, Field(ge=self.low, le=self.high, **finite)]).core_schema


# Fields of records.
Line = Annotated[str, Passing(one_line)]
Lines = Annotated[str, Passing(printable)]
Count = Annotated[int, Within(0, 2**53)]
# Seconds since 1970, until the year 5138: clocks can show nothing beyond the year 9999.
Time = Annotated[float, Within(0, 1e11)]
# What a training measures, in numbers of 32 bits; a duration in seconds.
Measure = Annotated[float, Within(-1e39, 1e39)]
Seconds = Annotated[float, Within(-1e12, 1e12)]


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
            return self._there(path)
        except (OSError, ValueError):
            return self._damaged(path)

    def is_damaged(self, path: Path) -> bool:
        """Whether a file is there and cannot be read."""
        try:
            self._there(path)
        except (OSError, ValueError):
            return True
        return False

    def _there(self, path: Path) -> T | None:
        """The record in a file; None where there is no such file. Raises OSError and ValueError for any other."""
        try:
            content = on_disk(partial(read_bytes, path, self._max_bytes), path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self.decode(content)

    def write(self, path: Path, record: T, *, durable: bool = True, is_private: bool = False) -> None:
        """Write a record as `write_atomic` does. Raises OSError."""
        write_atomic(path, self.encode(record), durable=durable, is_private=is_private)

    def encode(self, record: T) -> bytes:
        """The content of a record's file: JSON in one line."""
        return json.dumps(self._adapter.dump_python(record, mode="json")).encode() + b"\n"

    def decode(self, content: bytes) -> T:
        """The record with this content. Raises ValueError for any other content."""
        strict_json(content)
        return self._adapter.validate_json(content, strict=True)

    @cached_property
    def _adapter(self) -> "TypeAdapter[T]":
        from pydantic import TypeAdapter

        return TypeAdapter(self._kind)


def strict_json(content: bytes) -> Any:
    """What is in JSON of UTF-8 without a key that is there twice, NaN, or a number that no float can hold.

    Raises ValueError.
    """
    try:
        return json.loads(
            content.decode(), object_pairs_hook=_once, parse_constant=_refuse_number, parse_float=_finite_float
        )
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"no JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _finite_float(word: str) -> float:
    number = float(word)
    if math.isinf(number):
        _refuse_number(one_line(word[:40]))
    return number
