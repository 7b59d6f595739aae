"""Figures, as the verbs that compute them print them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accel_trainer.cli.app import echo_text

if TYPE_CHECKING:
    from accel_trainer.measures.figures import Figure

DIGITS = 5
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, with all digits.")]


def print_figures(figures: "Sequence[Figure]", *, as_csv: bool, as_json: bool) -> None:
    """All digits as CSV or JSON, or a table for people."""
    from accel_trainer.measures.figures import records

    print_records(records(figures), as_csv=as_csv, as_json=as_json)


def print_records(rows: Sequence[Mapping[str, Any]], *, as_csv: bool, as_json: bool) -> None:
    """As `print_figures`, of rows of the long form."""
    from accel_trainer.measures.figures import csv_of

    if as_json:
        echo_text(json.dumps(rows, indent=2))
    elif as_csv:
        echo_text(csv_of(rows).removesuffix("\n"))
    else:
        echo_text(_table(rows))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A column for each condition; those that are empty in all rows are left out."""
    from accel_trainer.cli.tables import table

    if not rows:
        return "no trials"
    names = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)]
    return table(names, [[_cell(row[name]) for name in names] for row in rows])


def _cell(value: Any) -> Any:
    """A number with as many digits as figures are published with at most."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.{DIGITS}f}"
    return value
