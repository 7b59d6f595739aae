"""Tables on the terminal.

rich draws the cells of a table at about a millisecond each: `status --all` of a queue with thousands of jobs would take
half a minute. So only the widths of characters are rich's here.
"""

from collections.abc import Callable, Sequence

from accel_trainer.core.text import printable


def as_it_is(column: str, cell: str) -> str:
    """A cell without colors."""
    return cell


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    decimals: Sequence[int] = (),
    paint: Callable[[str, str], str] = as_it_is,
) -> str:
    """Aligned columns; numbers to the right, everything else to the left, None as '-'. No line is ever wrapped.
    decimals: of the numbers of each column that are not whole; 2 by default. paint: gives a cell its colors, of the
    name of its column and the cell with its padding."""
    places = decimals or [2] * len(header)
    cells = [list(header), *([_cell(value, digits) for value, digits in zip(row, places, strict=True)] for row in rows)]
    widths = [max(map(text_width, column)) for column in zip(*cells, strict=True)]
    is_number = [
        all(isinstance(value, (int, float, type(None))) for value in column) for column in zip(*rows, strict=True)
    ]
    is_right = is_number or [False] * len(header)
    lines = []
    for number, line in enumerate(cells):
        padding = [" " * (width - text_width(cell)) for cell, width in zip(line, widths, strict=True)]
        padded = [
            f"{space}{cell}" if right else f"{cell}{space}"
            for cell, space, right in zip(line, padding, is_right, strict=True)
        ]
        if number:
            padded = [paint(column, cell) for column, cell in zip(header, padded, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def text_width(text: str) -> int:
    """In columns of a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cut(text: str, width: int) -> str:
    """A text in so many columns of a terminal at most; what is left out is marked by '...'."""
    if text_width(text) <= width:
        return text
    text = text[:width]
    while text and text_width(text) > max(0, width - 3):
        text = text[:-1]
    return f"{text}..."[:width]


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
