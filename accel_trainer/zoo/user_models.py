"""Models of the user's own packages by import path, such as `my_lab.models:Net`."""

import functools
import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from accel_trainer.core.allow_imports import current_folder_searched, may_import, refuse_import
from accel_trainer.core.construct import keyword_parameters, refuse_missing, refuse_unknown, with_classes
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, first_line
from accel_trainer.zoo.process_settings import settings_kept


def build(path: str, args: Mapping[str, Any], *, num_classes: int, image_size: int) -> nn.Module:
    """The model that the class or function at an import path gives when called with `args`.

    `num_classes` is passed where the signature has it or takes any keyword, `image_size` where it has it. Raises
    UserError for a path that is not allowed (before anything is imported) or does not lead to a model, for arguments
    that do not fit the signature, and for whatever the user's code raises.
    """
    with current_folder_searched():
        constructor = _find(path)
        args = _arguments(path, constructor, args, num_classes, image_size)
        try:
            with settings_kept(path):
                model = constructor(**args)
        except (Exception, SystemExit) as error:
            raise UserError(f"{path}: {in_one_line(error)}", key="architecture") from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{path} gives something of type {type(model).__name__}, not a torch.nn.Module", key="architecture"
        )
    if any(is_lazy(parameter) for parameter in (*model.parameters(), *model.buffers())):
        raise UserError(f"{path} has lazy layers, which have no weights before their first input", key="architecture")
    return model


def takes_num_classes(path: str) -> bool:
    """Whether the class or function at an import path names `num_classes` among its arguments. Raises UserError."""
    with current_folder_searched():
        return "num_classes" in keyword_parameters(_parameters(path, _find(path)))


def in_one_line(error: BaseException) -> str:
    """What the user's code raised, with the last place in that code that it came through."""
    kind, reason = type(error).__name__, first_line(error)
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
              if may_import(str(frame.f_globals.get("__name__")))]  # fmt: skip
    where = f" ({Path(frames[-1][0]).name}, line {frames[-1][1]})" if frames else ""
    return f"{kind if reason == kind else f'{kind}: {reason}'}{where}"


def import_aside(module: str) -> ModuleType:
    """Import a module so that nothing depends on when it is: its tensors have values, also where models are built on
    the meta device, and torch's generator and the settings of the process stay as they were."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), settings_kept(module):
        return importlib.import_module(module)


def _find(path: str) -> Callable[..., Any]:
    """The class or function at a path; only what an allowed package defines is looked into or given."""
    module, _, names = path.partition(":")
    if not all(word.isidentifier() for word in (*module.split("."), *names.split("."))):
        raise UserError(f"{path!r} is not an import path such as 'my_lab.models:Net'", key="architecture")
    if private := [name for name in names.split(".") if name.startswith("_")]:
        raise UserError(f"{path}: {private[0]} is private; name a class or function without '_'", key="architecture")
    refuse_import(module)
    found: Any = _import(module)
    for name in names.split("."):
        found = _member(path, found, name)
    if not callable(found):
        raise UserError(f"{path} is of type {type(found).__name__}; it must be a class or function", key="architecture")
    constructor: Callable[..., Any] = found
    return constructor


def _import(module: str) -> ModuleType:
    try:
        return import_aside(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{module} cannot be imported: {in_one_line(error)}", key="architecture") from error
        raise UserError(
            f"there is no module {error.name!r}, neither in {Path.cwd()} nor where Python looks", key="architecture"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{module} cannot be imported: {in_one_line(error)}", key="architecture") from error


def _member(path: str, place: Any, name: str) -> Any:
    if not isinstance(place, type | ModuleType):
        raise UserError(f"{path}: {name} is neither in a module nor in a class", key="architecture")
    try:
        member = getattr(place, name)
    except AttributeError as error:
        public = [word for word in vars(place) if not word.startswith("_")]
        raise UserError(
            f"{path}: there is no {name!r} in {place.__name__}{did_you_mean(name, public)}", key="architecture"
        ) from error
    home = _home(member)
    if home is not None and not may_import(home):
        raise UserError(
            f"{path}: {name} is of {home!r}, which is not an allowed package; "
            "name a class or function of your own that gives the model",
            key="architecture",
        )
    return member


def _home(member: Any) -> str | None:
    """The module that defines something; None for plain values."""
    while isinstance(member, functools.partial):
        member = member.func
    if isinstance(member, ModuleType):
        return member.__name__
    # A callable that does not say where it is from may be anything.
    return getattr(member, "__module__", None) or (type(member).__module__ if callable(member) else None)


def _arguments(
    path: str, constructor: Callable[..., Any], args: Mapping[str, Any], num_classes: int, image_size: int
) -> dict[str, Any]:
    parameters = _parameters(path, constructor)
    accepted = keyword_parameters(parameters)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    args = with_classes(args, num_classes) if takes_any or "num_classes" in accepted else dict(args)
    if "image_size" in accepted:
        args.setdefault("image_size", image_size)
    if not takes_any:
        refuse_unknown("architecture", path, args, list(accepted))
    refuse_missing("architecture", path, args, accepted)
    return args


def _parameters(path: str, constructor: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(constructor).parameters.values())
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}: nothing is known of its arguments: {first_line(error)}", key="architecture"
        ) from error
