"""Tables on the terminal.

rich draws the cells of a table at about a millisecond each: `status --all` of a queue with thousands of jobs would take
half a minute. So only the widths of characters are rich's here.
"""

from collections.abc import Sequence

from accel_trainer.core.text import printable


def table(header: Sequence[str], rows: Sequence[Sequence[object]], decimals: Sequence[int] = ()) -> str:
    """Aligned columns; numbers to the right, everything else to the left, None as '-'. No line is ever wrapped.
    decimals: of the numbers of each column that are not whole; 2 by default."""
    places = decimals or [2] * len(header)
    cells = [list(header), *([_cell(value, digits) for value, digits in zip(row, places, strict=True)] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    is_number = [
        all(isinstance(value, (int, float, type(None))) for value in column) for column in zip(*rows, strict=True)
    ]
    is_right = is_number or [False] * len(header)
    lines = []
    for line in cells:
        padding = [" " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        padded = [
            f"{space}{cell}" if right else f"{cell}{space}"
            for cell, space, right in zip(line, padding, is_right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _width(text: str) -> int:
    """In columns of a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cell(value: object, decimals: int) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.{decimals}f}"
        case int():
            return f"{value:,}"
        case _:
            return printable(str(value)).replace("\n", r"\n")
