"""NumPy's scalars in pickles, such as a learning rate in an optimizer's state, without any code of NumPy's.

An unpickler that is given `NUMPY_NUMBERS` calls these instead of what the names in the file stand for.
"""

import re
import struct
from collections.abc import Callable
from typing import Any

# The letters of struct for NumPy's: integers, unsigned ones, floating point numbers, truth values.
FORMATS = {
    "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d", "b1": "?",
}  # fmt: skip


class NumberType:
    """Stands for `numpy.dtype` of a plain number. Raises ValueError for any other type."""

    def __init__(self, code: object = None, *_: object) -> None:
        if not isinstance(code, str) or (known := re.fullmatch(r"[<>|=]?([iufb][1248])", code)) is None:
            raise ValueError("a NumPy value that is no plain number")
        self.format = _format(known[1])
        self.byte_order = "<"

    def __setstate__(self, state: object) -> None:
        """`state`: what NumPy pickles of a type, of which the byte order matters: (version, order, ...)."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise ValueError("a NumPy type without a byte order")
        self.byte_order = ">" if order == ">" else "<"


def _format(code: str) -> str:
    if code not in FORMATS:
        raise ValueError("a NumPy value that is no plain number")
    return FORMATS[code]


def number(kind: object = None, content: object = None, *_: object) -> int | float | bool:
    """Stands for `numpy.core.multiarray.scalar`. Raises ValueError for what is no plain number."""
    if not isinstance(kind, NumberType) or not isinstance(content, bytes):
        raise ValueError("a NumPy value that is no plain number")
    layout = struct.Struct(kind.byte_order + kind.format)
    if len(content) != layout.size:
        raise ValueError("a NumPy number of another size than its type")
    value: int | float | bool = layout.unpack(content)[0]
    return value


NUMPY_NUMBERS: tuple[tuple[Callable[..., Any], str], ...] = (
    (NumberType, "numpy.dtype"),
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
)
"""(what is called, for which name in a file)"""
