"""Published trials of people and of models, in the columns that they were published in.

Cells are texts: a condition may be called inf, none, true or 0.00, and the answer na is one of its own, a wrong one.
"""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import MEBIBYTE, read_bytes, read_start
from accel_trainer.core.text import listed
from accel_trainer.measures.consistency import picture_of
from accel_trainer.measures.factor import as_text
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Cell, Trials
from accel_trainer.measures.trials_file import open_parquet

# Of a table, unpacked. The largest published one has 2 MB.
MAX_BYTES = 1024 * MEBIBYTE
PARQUET, GZIP = b"PAR1", b"\x1f\x8b"

# By lower-case names of columns; what else a table has is left out.
GEIRHOS = ("subj", "rt", "object_response", "category", "condition", "imagename")
OCCLUSION = (
    "subject",
    "stimulus_id",
    "object_class",
    "occluder_class",
    "occluder_color",
    "visibility",
    "prediction",
    "rt",
    "accuracy",
)
ACCURACIES = ("model", "corruption", "severity", "accuracy")

# Of the benchmarks of Geirhos et al. (2021) those conditions that error consistency and accuracy there leave out: the
# images themselves, and conditions that people got less than 0.2 right. Of false-colour it is the one called true.
LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "colour": ("cr",),
    "contrast": ("c100", "c03", "c01"),
    "eidolonI": ("1-10-10", "64-10-10", "128-10-10"),
    "eidolonII": ("1-3-10", "32-3-10", "64-3-10", "128-3-10"),
    "eidolonIII": ("1-0-10", "16-0-10", "32-0-10", "64-0-10", "128-0-10"),
    "false-colour": ("true",),
    "high-pass": ("inf", "0.55", "0.45", "0.4"),
    "low-pass": ("0", "15", "40"),
    "phase-scrambling": ("0", "150", "180"),
    "power-equalisation": ("0",),
    "rotation": ("0",),
    "uniform-noise": ("0.00", "0.60", "0.90"),
}

Table = Mapping[str, Sequence[str]]
# Of a table and the name of its benchmark.
_Reader = Callable[[Table, str], Trials | list[Figure]]


def is_parquet(path: Path) -> bool:
    """By its first bytes. Raises OSError."""
    return read_start(path, len(PARQUET)) == PARQUET


def read_published(path: Path, benchmark: str | None = None) -> Trials | list[Figure]:
    """A published table (CSV, gzipped or not, or Parquet): its trials, or, of a table of accuracies, these.

    benchmark: the name of the data set; by default `benchmark_of` the file. Columns are known by their names, upper or
    lower case:

    - subj, rt, object_response, category, condition, imagename (Geirhos et al., 2018, 2019, 2021): conditions
      `benchmark` and `condition`; the image is the picture that its name ends with (`picture_of`).
    - subject, stimulus_id, object_class, occluder_class, occluder_color, visibility, prediction, rt, accuracy (Coggan
      and Tong): conditions `benchmark`, `occluder_class`, `occluder_color`, `visibility`.
    - model, corruption, severity, accuracy (0..1): `accuracy` of each model, conditions `corruption` and `severity`.

    Raises UserError for other columns and for cells that are none of these; OSError.
    """
    name = benchmark_of(path) if benchmark is None else benchmark
    try:
        read, table = _table(path)
        return read(table, name)
    except UserError as error:
        raise error.at(path) from error


def benchmark_of(path: Path) -> str:
    """The data set that a published file is of: cue-conflict of cue-conflict.csv.gz, and of
    cue-conflict/cue-conflict_subject-01_session_1.csv."""
    name = path.name
    for suffix in (".gz", ".csv", ".parquet"):
        name = name.removesuffix(suffix)
    folder = path.absolute().parent.name
    return folder if folder and name.startswith(f"{folder}_") else name


def _geirhos(table: Table, benchmark: str) -> Trials:
    return Trials.of(
        [picture_of(name) for name in table["imagename"]],
        table["category"],
        table["object_response"],
        observer=table["subj"],
        conditions={"benchmark": benchmark, "condition": table["condition"]},
        seconds=_seconds(table["rt"]),
    )


def _occlusion(table: Table, benchmark: str) -> Trials:
    names = ("occluder_class", "occluder_color", "visibility")
    return Trials.of(
        table["stimulus_id"],
        table["object_class"],
        table["prediction"],
        observer=table["subject"],
        conditions={"benchmark": benchmark, **{name: table[name] for name in names}},
        correct=[number == 1 for number in _zero_or_one(table["accuracy"])],
        seconds=_seconds(table["rt"]),
    )


def _accuracies(table: Table, _: str) -> list[Figure]:
    rows = zip(table["model"], table["corruption"], table["severity"], table["accuracy"], strict=True)
    figures = list[Figure]()
    for row, (model, corruption, severity, text) in enumerate(rows, 1):
        value = _number(text, f"row {row}: accuracy")
        if not 0 <= value <= 1:
            raise UserError(f"row {row}: the accuracy {text} is not in 0..1", hint="give shares, not percents")
        cell = Cell(model, conditions=(("corruption", corruption), ("severity", severity)))
        figures.append(Figure(cell, "accuracy", value))
    return figures


_LAYOUTS: Mapping[tuple[str, ...], _Reader] = {
    GEIRHOS: _geirhos,
    OCCLUSION: _occlusion,
    ACCURACIES: _accuracies,
}


def without_left_out(trials: Trials) -> tuple[Trials, dict[str, tuple[str, ...]]]:
    """Trials without the conditions that the published error consistencies leave out (`LEFT_OUT`), and which these are,
    by benchmark."""
    if not {"benchmark", "condition"} <= trials.conditions.keys():
        return trials, {}
    benchmark, condition = trials.conditions["benchmark"], trials.conditions["condition"]
    dropped = np.zeros(len(trials), bool)
    found = dict[str, tuple[str, ...]]()
    for name in benchmark.used():
        if levels := LEFT_OUT.get(name):
            of_name = benchmark.is_in([name]) & condition.is_in(levels)
            dropped |= of_name
            if of_name.any():
                found[name] = condition.select(of_name).used()
    return (trials.select(~dropped) if found else trials), found


def _zero_or_one(texts: Sequence[str]) -> list[float]:
    values = [_number(text, f"row {row}: accuracy") for row, text in enumerate(texts, 1)]
    if strange := [f"row {row}" for row, value in enumerate(values, 1) if value not in (0, 1)]:
        raise UserError(f"the accuracy of a trial is 0 or 1, but not in {listed(strange)}")
    return values


def _seconds(texts: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """A model's is NaN, one that was not measured empty or na."""
    missing = {"", "na", "nan", "none"}
    values = [
        math.nan if text.lower() in missing else _number(text, f"row {row}: rt") for row, text in enumerate(texts, 1)
    ]
    return np.array(values, np.float64)


def _number(text: str, what: str) -> float:
    words = {"true": 1.0, "false": 0.0}
    try:
        return words[text.lower()] if text.lower() in words else float(text)
    except ValueError:
        raise UserError(f"{what} is {text!r}, which is no number") from None


def _table(path: Path) -> tuple[_Reader, Table]:
    """How to read a table, and all its cells as texts, by the lower-case name of their column."""
    if is_parquet(path):
        table = open_parquet(path).read(use_threads=False)
        read = _layout([name.lower() for name in table.column_names])
        cells = zip(table.column_names, (column.to_pylist() for column in table.columns), strict=True)
        return read, {
            name.lower(): ["" if cell is None else as_text(cell) for cell in of_name] for name, of_name in cells
        }
    lines = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        header = [name.strip().lower() for name in next(lines, [])]
        read = _layout(header)
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise UserError(f"no CSV: {error}") from error
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise UserError(f"row {number} has {len(row)} cells for {len(header)} columns")
    return read, {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _layout(header: Sequence[str]) -> _Reader:
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise UserError(f"column {listed(twice)} is there twice")
    for columns, read in _LAYOUTS.items():
        if set(columns) <= set(header):
            return read
    layouts = "; ".join(", ".join(columns) for columns in _LAYOUTS)
    found = listed([name[:40] for name in header]) or "none"
    raise UserError(f"no published table of trials: its columns are {found}", hint=f"known are: {layouts}")


def _text(path: Path) -> str:
    content = read_bytes(path, MAX_BYTES)
    if content.startswith(GZIP):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(MAX_BYTES + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"damaged: {error}") from error
        if len(content) > MAX_BYTES:
            raise UserError(f"larger than {MAX_BYTES // MEBIBYTE:,} MiB when unpacked")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("no text in UTF-8") from error
