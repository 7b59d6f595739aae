"""A table for other programs and for papers: CSV, Markdown, LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from accel_trainer.core.text import one_line

FORMATS = ("table", "csv", "json", "markdown", "latex")
# Of LaTeX's characters those that mean something else there, or look so: its first encoding has another sign for <.
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
# Of Markdown's characters those that would mean something else in a cell: an underscore within a word does not.
_MARKED = re.compile(r"[\\`*<|~]|\[(?=[^]]*]\()|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """With all digits; nothing for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[Any]], decimals: Sequence[int]) -> str:
    """A table with pipes; numbers to the right, with as many decimals as their column has."""
    marks = ["---:" if is_number else "---" for is_number in _are_numbers(header, rows)]
    body = [list(map(in_markdown, shown_cells(row, decimals, "-"))) for row in rows]
    lines = [list(map(in_markdown, header)), marks, *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(header: Sequence[str], rows: Sequence[Sequence[Any]], decimals: Sequence[int]) -> str:
    r"""A tabular with the rules of booktabs, whose package the document loads. decimals: as of `as_markdown`."""
    columns = "".join("r" if is_number else "l" for is_number in _are_numbers(header, rows))
    body = [
        [_with_minus(text) if _is_negative(value) else _escaped(text) for value, text in zip(row, shown, strict=True)]
        for row, shown in zip(rows, (shown_cells(row, decimals, "--") for row in rows), strict=True)
    ]
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(list(map(_escaped, header))),
        r"\midrule",
        *map(_latex_row, body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _is_negative(value: Any) -> bool:
    return isinstance(value, int | float) and value < 0


def _with_minus(text: str) -> str:
    """A negative number, whose sign would else be a hyphen."""
    return f"$-${text.removeprefix('-')}"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)


def in_markdown(text: str) -> str:
    """A cell, or words of a text, whose characters stand for themselves, as in code in backticks they do already."""
    if text.startswith("`") and text.endswith("`") and text.count("`") == 2:
        return text.replace("|", r"\|")
    return _MARKED.sub(r"\\\g<0>", text)


def shown_cells(row: Sequence[Any], decimals: Sequence[int], nothing: str) -> list[str]:
    """The cells of a row as texts of one line; nothing: what stands for None."""
    return [
        nothing if value is None else f"{value:.{digits}f}" if isinstance(value, float) else one_line(value)
        for value, digits in zip(row, decimals, strict=True)
    ]


def _are_numbers(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bool]:
    """For each column whether it has numbers, and nothing else."""
    return [
        any(row[place] is not None for row in rows)
        and all(row[place] is None or isinstance(row[place], int | float) for row in rows)
        for place in range(len(header))
    ]
