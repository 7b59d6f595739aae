"""The keyword arguments of constructors, whoever wrote them."""

from collections.abc import Mapping, Sequence
from typing import Any

from accel_trainer.errors import UserError, did_you_mean


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
