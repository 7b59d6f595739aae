"""Figures, as the verbs that compute them print them."""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accel_trainer.cli.app import echo_text

if TYPE_CHECKING:
    from accel_trainer.measures.figures import Figure

DIGITS = 5
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV, with all digits.")]


def print_figures(figures: "Sequence[Figure]", *, as_csv: bool, as_json: bool) -> None:
    """All digits as CSV or JSON, or a table for people."""
    from accel_trainer.measures.figures import as_csv as csv_of
    from accel_trainer.measures.figures import records

    if as_json:
        echo_text(json.dumps(records(figures), indent=2))
    elif as_csv:
        echo_text(csv_of(figures).removesuffix("\n"))
    else:
        echo_text(_table(figures))


def _table(figures: "Sequence[Figure]") -> str:
    """A column for each condition; those that are empty in all rows are left out."""
    from accel_trainer.cli.tables import table
    from accel_trainer.measures.figures import records

    rows = records(figures)
    if not rows:
        return "no trials"
    names = [name for name in rows[0] if any(row[name] not in ("", None) for row in rows)]
    return table(names, [[_cell(row[name]) for name in names] for row in rows])


def _cell(value: Any) -> Any:
    """A number with as many digits as figures are published with at most."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.{DIGITS}f}"
    return value
