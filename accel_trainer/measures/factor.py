"""A column of few different values, as codes into texts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed

# Products of codes are smaller.
MAX_CODE = 2**62


@dataclass(frozen=True)
class Factor:
    """codes: (n,) int32, each the place of a value in `levels`, which are texts, none twice, in any order.

    Levels are what was written, never what it might mean: `inf`, `none`, `na` and `0.00` stay as they are.
    """

    codes: NDArray[np.int32]
    levels: tuple[str, ...]

    @classmethod
    def of(cls, values: Iterable[Any]) -> Self:
        """The column of these values: texts as they are, numbers as Python writes them (0.4, 1.0, 5)."""
        places = dict[str, int]()
        codes = [places.setdefault(as_text(value), len(places)) for value in values]
        return cls(np.array(codes, np.int32), tuple(places))

    @classmethod
    def constant(cls, value: object, length: int) -> Self:
        """A column of one value."""
        return cls(np.zeros(length, np.int32), (as_text(value),))

    @classmethod
    def joined(cls, parts: "Sequence[Factor]") -> Self:
        """One column below the other."""
        levels = tuple(dict.fromkeys(level for part in parts for level in part.levels))
        return cls(np.concatenate([part.recoded(levels).codes for part in parts]), levels)

    def __len__(self) -> int:
        return len(self.codes)

    def recoded(self, levels: tuple[str, ...]) -> Self:
        """The same values with these levels, of which each level of this one has to be one."""
        if levels == self.levels:
            return self
        places = {level: place for place, level in enumerate(levels)}
        table = np.array([places[level] for level in self.levels], np.int32)
        return type(self)(table[self.codes] if len(table) else self.codes, levels)

    def select(self, rows: NDArray[Any]) -> Self:
        """The values of these rows (indices or a mask). Levels stay, also those that no row has any more."""
        return type(self)(self.codes[rows], self.levels)

    def values(self) -> list[str]:
        """The texts of all rows."""
        return [self.levels[code] for code in self.codes.tolist()]

    def used(self) -> tuple[str, ...]:
        """The levels that some row has, `in_order`."""
        return in_order(self.levels[code] for code in np.unique(self.codes).tolist())

    def is_in(self, levels: Iterable[str]) -> NDArray[np.bool_]:
        """(n,) bool: the value is one of these."""
        wanted = set(levels)
        return np.array([level in wanted for level in self.levels], bool)[self.codes]

    def equals(self, other: "Factor") -> NDArray[np.bool_]:
        """(n,) bool: both have the same text."""
        levels = tuple(dict.fromkeys([*self.levels, *other.levels]))
        return np.asarray(self.recoded(levels).codes == other.recoded(levels).codes)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """(n,) float64. Raises UserError, which calls the column `name`, for a level that is no finite number."""
        numbers = [number_of(level) for level in self.levels]
        used = set(np.unique(self.codes).tolist())
        strange = [self.levels[code] for code, number in enumerate(numbers) if number is None and code in used]
        if strange:
            raise UserError(
                f"no number in column {name!r}: {listed(map(repr, strange))}", hint="leave these trials out"
            )
        return np.array([math.nan if number is None else number for number in numbers], np.float64)[self.codes]


def as_text(value: Any) -> str:
    """A text as it is, a number as Python writes it."""
    if isinstance(value, str):
        return value
    return str(value.item() if isinstance(value, np.generic) else value)


def number_of(text: str) -> float | None:
    """The finite number that is written so, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def in_order(levels: Iterable[str]) -> tuple[str, ...]:
    """Words by the alphabet, then numbers by their size, then words that mean an infinite one."""
    return tuple(sorted(levels, key=place_of))


def place_of(level: str) -> tuple[int, float, str]:
    """What sorts levels, as `in_order` has them."""
    if (number := number_of(level)) is not None:
        return 1, number, level
    return (2 if level.lstrip("+-").lower() in ("inf", "infinity") else 0), 0.0, level


def groups(columns: Sequence[Factor], length: int) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
    """Rows with the same values: ((n,) int64 group of each row, the values of each group)."""
    codes, size = np.zeros(length, np.int64), 1
    for column in columns:
        if size * len(column.levels) >= MAX_CODE:
            found, codes = np.unique(codes, return_inverse=True)
            size = len(found)
        codes = codes * len(column.levels) + column.codes
        size *= len(column.levels)
    _, first, of_row = np.unique(codes, return_index=True, return_inverse=True)
    rows = first.tolist()
    return of_row.reshape(-1), [tuple(column.levels[column.codes[row]] for column in columns) for row in rows]
