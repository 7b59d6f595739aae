"""Types of the arguments that a job file gives to a class of torch.

torch checks few of them: `{"amsgrad": "false"}` is true, and `{"betas": [0.9, 0.99, 0.999]}` fails in the first step.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from accel_trainer.core.construct import check_names, find_class, keyword_parameters
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.mistakes import Mistakes


@dataclass(frozen=True)
class _Kind:
    """Values of one kind: what they are in words, and whether a value of JSON is one."""

    words: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and float(value).is_integer()


_TRUTH = _Kind("true or false", lambda value: isinstance(value, bool))
_WHOLE = _Kind("a whole number", _is_whole)
_NUMBER = _Kind("a number", _is_number)
_TEXT = _Kind("a text", lambda value: isinstance(value, str))
_WHOLES = _Kind("a list of whole numbers", lambda value: isinstance(value, list) and all(map(_is_whole, value)))
_NUMBER_OR_LIST = _Kind(
    "a number, or a list of them",
    lambda value: _is_number(value) or (isinstance(value, list) and bool(value) and all(map(_is_number, value))),
)


def _tuple_of(default: tuple[Any, ...]) -> _Kind:
    def holds(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(default)
            and all(_is_number(v) or (v is None and d is None) for v, d in zip(value, default, strict=True))
        )

    return _Kind(f"a list of {len(default)} numbers", holds)


def with_checked_types(key: str, name: str, kind: type[Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the class takes them, with tuples where it has such; those that it does not have, or whose
    type it does not say, as they are.

    key: of the job file, such as "optimizer_args"; name: of the class there. Raises UserError for one that is of
    another type than the class says by its annotation or its default.
    """
    parameters, checked = keyword_parameters(inspect.signature(kind).parameters.values()), dict(args)
    problems: list[Problem] = []
    for argument, value in args.items():
        if (parameter := parameters.get(argument)) is None:
            continue
        expected = _kind_of(parameter)
        if expected is None or (value is None and _may_be_none(parameter)):
            continue
        if not expected.holds(value):
            problems.append(Problem(f"{name}: {argument} is {value!r}, and not {expected.words}", key=key))
        elif isinstance(parameter.default, tuple):
            checked[argument] = tuple(value)
    if problems:
        raise UserError(*problems)
    return checked


def check_arguments(
    key: str, known: Mapping[str, type[Any]], name: str, args: Mapping[str, Any], num_given: int = 1
) -> dict[str, Any]:
    """The arguments of `known[name]` as it takes them: all their names and types are looked at. key: the parameter that
    holds the name; num_given: of the arguments that are not in the job file. Raises UserError."""
    mistakes, kind = Mistakes(), find_class(key, known, name)
    checked = mistakes.of(lambda: with_checked_types(f"{key}_args", name, kind, args))
    mistakes.of(lambda: check_names(key, name, kind, args, num_given))
    mistakes.raise_found()
    return {} if checked is None else checked


def _kind_of(parameter: inspect.Parameter) -> _Kind | None:
    """What the default shows, or else the annotation: some versions of torch have none. None: not known."""
    default, annotation = parameter.default, _annotation(parameter)
    if isinstance(default, tuple):
        return _tuple_of(default)
    if re.search(r"\blist\b", annotation) and "Callable" not in annotation:
        return _NUMBER_OR_LIST
    if re.search(r"\bIterable\[int\]", annotation):
        return _WHOLES
    if isinstance(default, bool) or re.search(r"\bbool\b", annotation):
        return _TRUTH
    if isinstance(default, str):
        return _TEXT
    if re.search(r"\bfloat\b", annotation) and "Callable" not in annotation:
        return _NUMBER
    if re.search(r"\bint\b", annotation) and "Callable" not in annotation:
        return _WHOLE
    return _NUMBER if _is_number(default) else None


def _annotation(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return ""
    text = (
        parameter.annotation
        if isinstance(parameter.annotation, str)
        else inspect.formatannotation(parameter.annotation)
    )
    return text.replace("List[", "list[")


def _may_be_none(parameter: inspect.Parameter) -> bool:
    return parameter.default is None or "None" in _annotation(parameter)
