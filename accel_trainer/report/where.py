"""Which runs are compared: conditions such as `lr>=0.05` and `architecture=resnet18,vgg11`."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.record_store import strict_json
from accel_trainer.core.text import canonical
from accel_trainer.report.columns import Column, find_column, is_number
from accel_trainer.report.compare import Comparison

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([^=!<>~]+?)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """One condition: a name, one of = != < <= > >= ~ (a pattern with * and ?), and a value, or several with commas of
    which one is enough (with != none may be)."""

    name: str
    relation: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Raises UserError for what is no condition, and for an order of what is no number."""
        match = _CONDITION.fullmatch(text)
        if match is None or not match[3]:
            raise UserError(f"{text!r} is no condition; such as lr>=0.1, state!=failed, job~digits-*", option="where")
        name, relation, words = match.groups()
        values = (words,) if relation == "~" else (_value(words), *map(_value, _parts(words)))
        if relation in ORDERS and not is_number(values[0]):
            raise UserError(f"{text!r}: {words!r} is no number", option="where")
        return cls(name, relation, values)

    def holds(self, value: Any) -> bool:
        """Whether it does of what a run has, None where it has nothing."""
        match self.relation:
            case "~":
                return value is not None and fnmatchcase(_text(value), self.values[0])
            case "=" | "!=":
                return any(_same(value, wanted) for wanted in self.values) == (self.relation == "=")
            case order:
                return is_number(value) and ORDERS[order](value, self.values[0])


def chosen(runs: Sequence[Comparison], conditions: Sequence[str]) -> list[Comparison]:
    """The runs of which all conditions hold. Raises UserError."""
    parsed = [Condition.parse(text) for text in conditions]
    columns: list[tuple[Condition, Column]] = [(one, find_column(one.name, runs, "where")) for one in parsed]
    return [run for run in runs if all(one.holds(column.of(run)) for one, column in columns)]


def _parts(words: str) -> list[str]:
    """Of a list with commas, which is not one in JSON."""
    parts = [part.strip() for part in words.split(",")]
    return parts if len(parts) > 1 and not words.startswith(("[", "{", '"')) else []


def _value(text: str) -> Any:
    """As in a job file; a word without quotes is a text."""
    try:
        return strict_json(text.encode())
    except ValueError:
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _same(value: Any, wanted: Any) -> bool:
    return canonical(value) == canonical(wanted) or (isinstance(value, str) and value == _text(wanted))
