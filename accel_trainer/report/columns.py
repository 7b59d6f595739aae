"""The columns of a comparison by the names that a person gives them: what every run has, metrics, parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean
from accel_trainer.report.compare import Comparison, find_parameters, names_of_parameters

# What every run has.
FIELDS = (
    "job",
    "architecture",
    "parameters",
    "state",
    "epochs",
    "metric",
    "best",
    "best_epoch",
    "images_per_s",
    "seconds",
)


@dataclass(frozen=True)
class Column:
    """A name, and what a run has there; None for nothing."""

    name: str
    of: Callable[[Comparison], Any]


def find_column(name: str, runs: Sequence[Comparison], option: str) -> Column:
    """The column of a name: of `FIELDS`, a metric that was asked for, or a parameter by the end of its name.

    Raises UserError of an option, for a name of none and of several.
    """
    if name in FIELDS:
        return Column(name, lambda run: getattr(run, name))
    if runs and name in runs[0].values:
        return Column(name, lambda run: run.values[name])
    known = names_of_parameters(runs)
    if name not in known and not any(key.endswith(f".{name}") for key in known):
        near = did_you_mean(name, [*FIELDS, *known, *(key.rpartition(".")[2] for key in known)])
        raise UserError(f"no run has {name!r}{near}", option=option)
    (key,) = find_parameters([name], runs, option)
    return Column(key, lambda run: run.settings.get(key))


def split_names(text: str) -> list[str]:
    """The names in 'lr, seed'."""
    return [name for word in text.split(",") if (name := word.strip())]


def in_order_of(runs: Sequence[Comparison], names: Sequence[str]) -> list[Comparison]:
    """Runs sorted by columns, the first one first; `-best`: the largest first. Numbers come before words, and what is
    not there last. Raises UserError."""
    ordered = list(runs)
    for name in reversed(names):
        is_reversed = name.startswith("-")
        column = find_column(name.removeprefix("-"), runs, "sort")
        there = [run for run in ordered if column.of(run) is not None]
        missing = [run for run in ordered if column.of(run) is None]
        ordered = [*sorted(there, key=lambda run: place_in_order(column.of(run)), reverse=is_reversed), *missing]
    return ordered


def is_number(value: Any) -> bool:
    """true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def place_in_order(value: Any) -> tuple[bool, float, str]:
    """The key that sorts numbers by their size, and then everything else by its text."""
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if is_number else 0.0, str(value)
