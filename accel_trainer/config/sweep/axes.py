"""The parameters that vary in a sweep, their values as a person types them, and the combinations of these."""

import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, assert_never, get_args

from accel_trainer.config.job_text import LONE_SURROGATE, parse_json
from accel_trainer.core.errors import InvalidJob, Problem, UserError
from accel_trainer.core.text import canonical, format_value

MAX_JOBS = 1000
# Of numbers that are drawn: short enough for a name, and thousands of them in any range.
DIGITS = 5
# How often to draw for each job that is wanted, before there seem to be no others.
TRIES = 100

Kind = Literal["uniform", "log", "int"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RANGE = re.compile(r"([A-Za-z_]+):([-+.\dEe_]+):([-+.\dEe_]+)")
RANGES = ", ".join(f"{kind}:LOW:HIGH" for kind in KINDS)

Settings = Mapping[str, Any]
"""One combination: {key: value}, with keys such as `optimizer_args.lr`."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included: equally likely, equally likely in their logarithm, or whole."""

    kind: Kind
    low: float
    high: float

    @property
    def num_values(self) -> float:
        """How many numbers there are: infinitely many, but for whole ones."""
        return self.high - self.low + 1 if self.kind == "int" else math.inf

    def at(self, fraction: float) -> float:
        """The number at a fraction, in [0, 1), of the range."""
        match self.kind:
            case "uniform":
                return self._rounded(self.low + fraction * (self.high - self.low))
            case "log":
                low, high = math.log(self.low), math.log(self.high)
                return self._rounded(math.exp(low + fraction * (high - low)))
            case "int":
                return int(self.low + math.floor(fraction * self.num_values))
            case _:
                assert_never(self.kind)

    def _rounded(self, number: float) -> float:
        """To few digits; to more where all numbers of the range begin alike."""
        alike = math.log10(max(abs(self.low), abs(self.high)) / (self.high - self.low))
        rounded = float(f"{number:.{DIGITS + max(0, math.floor(alike))}g}")
        return min(max(rounded, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.kind}:{self.low:g}:{self.high:g}"


@dataclass(frozen=True)
class Axis:
    """A parameter that varies."""

    key: str
    values: tuple[Any, ...] | Range

    @property
    def num_values(self) -> float:
        """How many values there are; infinitely many in a range of real numbers."""
        return self.values.num_values if isinstance(self.values, Range) else len(self.values)

    def all(self) -> Sequence[Any]:
        """Every value. Raises ValueError for a range of real numbers."""
        if not isinstance(self.values, Range):
            return self.values
        if self.values.kind != "int":
            raise ValueError(f"{self.values} has no end")
        return range(int(self.values.low), int(self.values.high) + 1)

    def at(self, fraction: float) -> Any:
        """The value at a fraction, in [0, 1), of all values."""
        if isinstance(self.values, Range):
            return self.values.at(fraction)
        return self.values[int(fraction * len(self.values))]


# -- combinations ------------------------------------------------------------------------------------------------


def grid(axes: Sequence[Axis]) -> list[Settings]:
    """Every combination; the last axis varies fastest. Raises UserError for a range, and for too many."""
    for axis in axes:
        if isinstance(axis.values, Range):
            message = f"{axis.values} is a range to draw from"
            raise UserError(message, key=axis.key, hint="give the number of draws with `random`")
    return _all(axes)


def random_search(axes: Sequence[Axis], number: int, seed: int) -> list[Settings]:
    """That many different combinations, drawn independently; all of them where there are no more.

    The same seed draws the same ones, and a larger number the same and more.
    """
    if number > MAX_JOBS:
        raise UserError(f"{number:,} are too many: a sweep may have {MAX_JOBS:,} jobs")
    if math.prod(axis.num_values for axis in axes) <= number:
        return _all(axes)
    generator = random.Random(seed)
    drawn: dict[str, Settings] = {}
    for _ in range(TRIES * number):
        settings = {axis.key: axis.at(generator.random()) for axis in axes}
        drawn.setdefault(canonical(settings), settings)
        if len(drawn) == number:
            break
    return list(drawn.values())


def _all(axes: Sequence[Axis]) -> list[Settings]:
    if (number := math.prod(axis.num_values for axis in axes)) > MAX_JOBS:
        message = f"{number:,} combinations, and a sweep may have {MAX_JOBS:,} jobs"
        raise UserError(message, hint="leave values out, or draw some with `random`")
    keys = [axis.key for axis in axes]
    return [dict(zip(keys, values, strict=True)) for values in product(*(axis.all() for axis in axes))]


# -- what a person types -----------------------------------------------------------------------------------------


def parse_axes(settings: Sequence[str]) -> list[Axis]:
    """`KEY=VALUE,VALUE` or `KEY=log:LOW:HIGH`, each. Raises UserError with a problem for each mistake."""
    axes: list[Axis] = []
    problems: list[Problem] = []
    for setting in settings:
        try:
            axes.append(_axis(setting))
        except UserError as error:
            problems += error.details
    keys = [axis.key for axis in axes]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            problems.append(Problem("given twice", key=key, hint=f"list all values in one: {key}=VALUE,VALUE"))
        if outer := next((other for other in keys if key.startswith(f"{other}.")), None):
            problems.append(Problem(f"is a part of {outer}, which is set too", key=key, hint="set one of them"))
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return axes


def _axis(setting: str) -> Axis:
    key, is_given, text = setting.partition("=")
    key = key.strip()
    if not is_given or not all(key.split(".")):
        raise UserError("it is KEY=VALUE,VALUE, such as seed=0,1,2 or optimizer_args.lr=0.1,0.01", key=setting)
    parts = [part.strip() for part in _split(text, key)]
    if len(parts) == 1 and (numbers := _range(parts[0], key)) is not None:
        return Axis(key, numbers)
    values = [_value(part, key) for part in parts]
    texts = [canonical(value) for value in values]
    if twice := [value for number, value in enumerate(values) if texts[number] in texts[:number]]:
        raise UserError(f"{format_value(twice[0])}: given twice", key=key, hint="keep one")
    return Axis(key, tuple(values))


def _split(text: str, key: str) -> Iterator[str]:
    """What is between commas, but for those inside brackets and quotes."""
    depth, start, is_quoted, is_escaped = 0, 0, False, False
    for position, character in enumerate(text):
        if is_quoted:
            is_quoted = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            is_quoted = True
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[start:position]
            start = position + 1
    if is_quoted or depth:
        raise UserError(f"{text}: a {'quote' if is_quoted else 'bracket'} has no partner", key=key)
    yield text[start:]


def _range(text: str, key: str) -> Range | None:
    if (match := RANGE.fullmatch(text)) is None:
        return None
    kind = next((kind for kind in KINDS if kind == match[1]), None)
    if kind is None:
        hint = f"a text of this form goes in quotes: '\"{text}\"'"
        raise UserError(f"{text}: ranges are {RANGES}", key=key, hint=hint)
    try:
        low, high = (int(bound) if kind == "int" else float(bound) for bound in match.groups()[1:])
    except ValueError as error:
        what = "whole numbers" if kind == "int" else "numbers"
        raise UserError(f"{text}: {kind}:LOW:HIGH takes two {what}", key=key) from error
    if not (math.isfinite(high - low) and low < high):
        raise UserError(f"{text}: takes two finite numbers, the smaller one first", key=key)
    if kind == "log" and low <= 0:
        raise UserError(f"{text}: only positive numbers have a logarithm", key=key)
    return Range(kind, low, high)


def _value(text: str, key: str) -> Any:
    """JSON, or else a text without quotes. What only looks like JSON is refused, lest `False` be a text, and true."""
    if not text:
        raise UserError("a value is empty", key=key, hint="an empty text is written '\"\"'")
    try:
        json.loads(text)
    except RecursionError as error:
        raise UserError("is nested too deeply", key=key) from error
    except ValueError as error:
        if (problem := _nearly_json(text)) is not None:
            raise UserError(f"{text}: {problem}", key=key) from error
        return text
    try:
        return parse_json(f'{{"value": {text}}}'.encode(), None)["value"]
    except InvalidJob as error:
        raise UserError(*(replace(problem, key=_key_in(key, problem.key)) for problem in error.details)) from error


def _key_in(key: str, inner: str | None) -> str:
    """The key of a mistake in what parse_json was given: a value, by the name of `value`."""
    inner = "" if inner is None else inner.removeprefix("value").removeprefix(".")
    return f"{key}.{inner}" if inner else key


def _nearly_json(text: str) -> str | None:
    """Why a text without quotes is probably a mistake."""
    if LONE_SURROGATE.search(text):
        return "is not text: some byte of it is not UTF-8"
    if text[0] in "[{\"'":
        return 'is not JSON; in a shell, single quotes keep the double ones: `set` \'KEY=["a", "b"]\''
    if text.lower() in ("true", "false"):
        return f"in JSON it is {text.lower()}"
    if text == "None":
        return "in JSON it is null"
    if RANGE.fullmatch(text) and text.startswith(KINDS):
        return "a range stands alone"
    try:
        number = float(text)
    except ValueError:
        return None
    of_json = f"in JSON it is {json.dumps(number)}" if math.isfinite(number) else "is no number in JSON"
    return f"{of_json}; a text goes in quotes: '\"{text}\"'"
