"""A class by its name, with keyword arguments that are checked."""

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, first_line, listed

T = TypeVar("T")


def subclasses(module: ModuleType, base: type, *, without: frozenset[str] = frozenset()) -> dict[str, type[Any]]:
    """The public classes of a module that derive from `base`, by name."""
    return {
        name: member
        for name, member in vars(module).items()
        if inspect.isclass(member)
        and issubclass(member, base)
        and member is not base
        and not name.startswith("_")
        and name not in without
    }


def find_class(key: str, known: Mapping[str, type[T]], name: str) -> type[T]:
    """`known[name]`. Raises UserError in the words of the job file, where `key` is the parameter with the name."""
    if name not in known:
        near = did_you_mean(name, known) or f"; it is one of {listed(sorted(known), at_most=30)}"
        raise UserError(f"{key}: {name!r} cannot be used here{near}")
    return known[name]


def construct(key: str, known: Mapping[str, type[T]], name: str, args: Mapping[str, Any], *given: Any) -> T:
    """`known[name](*given, **args)`; the errors are in the words of the job file.

    `key` is the parameter that holds the name; `<key>_args` holds the arguments. Raises UserError.
    """
    kind = find_class(key, known, name)
    parameters = list(inspect.signature(kind).parameters.values())[len(given) :]
    accepted = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for argument in args:
        if argument not in accepted:
            raise UserError(
                f"{key}_args.{argument}: {name} takes no such argument{did_you_mean(argument, accepted)}"
                f"; it takes {', '.join(accepted)}"
            )
    missing = [p.name for p in parameters if p.name in accepted and p.default is p.empty and p.name not in args]
    if missing:
        raise UserError(f"{key}_args: {name} needs {', '.join(missing)}")
    try:
        return kind(*given, **args)
    except Exception as error:  # torch checks few of its arguments, and fails in many ways
        raise UserError(f"{key}_args: {name}: {first_line(error)}") from error


def with_classes(args: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """The arguments with `num_classes`. Raises UserError where they say another number."""
    args = {"num_classes": num_classes, **args}
    if args["num_classes"] != num_classes:
        raise UserError(
            f"architecture_args.num_classes: {args['num_classes']!r}, but the data set has {num_classes} classes; "
            "remove it: the output layer always fits"
        )
    return args


def refuse_unknown(name: str, args: Mapping[str, Any], accepted: Sequence[str]) -> None:
    """Raises UserError for the first argument that the model of that name does not take."""
    if unknown := [argument for argument in args if argument not in accepted]:
        raise UserError(
            f"architecture_args.{unknown[0]}: {name} takes no such argument"
            f"{did_you_mean(unknown[0], accepted)}; it takes {', '.join(accepted) or 'none'}"
        )
