"""A class by its name, with keyword arguments that are checked."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.core.text import did_you_mean, first_line, listed, near_misses

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


def find_class(
    key: str, known: Mapping[str, type[T]], name: str, refused: Mapping[str, str] = MappingProxyType({})
) -> type[T]:
    """`known[name]`. Raises UserError in the words of the job file, where `key` is the parameter with the name.

    refused: names that exist and cannot be used, with the reason.
    """
    if name in refused:
        raise UserError(f"{key}: {name!r} cannot be used here: {refused[name]}")
    if name not in known:
        near = did_you_mean(name, known) or f"; it is one of {listed(sorted(known), at_most=30)}"
        raise UserError(f"{key}: {name!r} cannot be used here{near}")
    return known[name]


def construct(key: str, known: Mapping[str, type[T]], name: str, args: Mapping[str, Any], *given: Any) -> T:
    """`known[name](*given, **args)`; the errors are in the words of the job file.

    `key` is the parameter that holds the name; `<key>_args` holds the arguments. Raises UserError.
    """
    kind = find_class(key, known, name)
    parameters = check_names(key, name, kind, args, len(given))
    try:
        return kind(*given, **args)
    except Exception as error:  # torch checks few of its arguments, and fails in many ways
        needed = {argument for argument in args if parameters[argument].default is inspect.Parameter.empty}
        alone = [_failure(kind, given, {n: v for n, v in args.items() if n in needed | {one}}) for one in args]
        messages = dict.fromkeys([message for message in alone if message is not None] or [first_line(error)])
        raise UserError(*(Problem(f"{name}: {message}", key=f"{key}_args") for message in messages)) from error


def _failure(kind: type[Any], given: Sequence[Any], args: Mapping[str, Any]) -> str | None:
    """What is wrong with one argument beside those that are needed; None where nothing is, by itself."""
    try:
        kind(*given, **args)
    except Exception as error:  # as of all arguments together
        return first_line(error)
    return None


def check_names(
    key: str, name: str, kind: type[Any], args: Mapping[str, Any], num_given: int
) -> dict[str, inspect.Parameter]:
    """The parameters of a class that can be given by name, after the first `num_given`. Raises UserError for arguments
    that it does not take, and for those that are missing. key: as for `construct`."""
    parameters = keyword_parameters(list(inspect.signature(kind).parameters.values())[num_given:])
    mistakes = Mistakes()
    mistakes.of(lambda: refuse_unknown(key, name, args, list(parameters)))
    meant = {near for argument in args if argument not in parameters for near in near_misses(argument, parameters)}
    others = {argument: parameter for argument, parameter in parameters.items() if argument not in meant}
    mistakes.of(lambda: refuse_missing(key, name, args, others))  # not what is there, by another name
    mistakes.raise_found()
    return parameters


def with_classes(args: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """The arguments with `num_classes`. Raises UserError where they say another number."""
    args = {"num_classes": num_classes, **args}
    if args["num_classes"] != num_classes:
        raise UserError(
            f"{args['num_classes']!r}, but the data set has {num_classes} classes",
            key="architecture_args.num_classes",
            hint="remove it: the output layer always fits",
        )
    return args


def keyword_parameters(parameters: Iterable[inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """Those that can be given by name, by their names; without **keywords."""
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def refuse_unknown(key: str, name: str, args: Mapping[str, Any], accepted: Sequence[str]) -> None:
    """Raises UserError for the arguments that `name` does not take. key: as for `construct`."""
    unknown = [argument for argument in args if argument not in accepted]
    if unknown:
        takes = f"it takes {', '.join(accepted) or 'none'}"
        raise UserError(
            *(
                Problem(
                    f"{name} takes no such argument{did_you_mean(argument, accepted)}",
                    key=f"{key}_args.{argument}",
                    hint=takes,
                )
                for argument in unknown
            )
        )


def refuse_missing(key: str, name: str, args: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Raises UserError where an argument without a default is not among `args`. key: as for `construct`."""
    if missing := [p.name for p in parameters.values() if p.default is p.empty and p.name not in args]:
        raise UserError(f"{name} needs {', '.join(missing)}", key=f"{key}_args")
