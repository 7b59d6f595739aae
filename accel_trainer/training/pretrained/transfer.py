"""Load trained weights into a model: tensors that fit, with a record of those that do not."""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate

import torch
from torch import Tensor, nn

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import first_line, listed
from accel_trainer.training.pretrained.fit import Fit, Shapes, fit_of, interpolate_positions
from accel_trainer.training.pretrained.matching import Match, Matcher, Tensors
from accel_trainer.training.runtime.module_state import is_extra_state

# How many names a line of the log has.
MAX_LISTED = 10
MAX_TABLE = 8


@dataclass(frozen=True)
class Transfer:
    """What of some weights went into a model. Names are those of the model's state dict, with the extra state of
    modules; `unused` are the file's.

    loaded: taken as they are; reshaped: taken in another shape with the same meaning; interpolated: position embeddings
    for another image size; skipped: of another shape, and left as initialized; unused: unknown to the model; missing:
    not in the file, and left as initialized; frozen: the modules that are not trained. source: the file, or the name of
    published weights. left_out, put_before: what the names in the file, or those in the model, begin with.
    parameters_loaded: how many of the `parameters`, the numbers in all parameters of the model.
    """

    loaded: tuple[str, ...]
    reshaped: Mapping[str, Shapes]
    skipped: Mapping[str, Shapes]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    frozen: tuple[str, ...] = ()
    source: str = ""
    interpolated: Mapping[str, Shapes] = field(default_factory=dict)
    left_out: str = ""
    put_before: str = ""
    parameters_loaded: int = 0
    parameters: int = 0

    @property
    def taken(self) -> list[str]:
        """The names of all that comes from the file."""
        return [*self.loaded, *self.reshaped, *self.interpolated]

    @property
    def share(self) -> float:
        """How much of the model's parameters comes from the file, 0 to 1."""
        return self.parameters_loaded / self.parameters if self.parameters else 0.0

    def as_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def lines(self) -> Iterator[str]:
        """Lines for a log: counts, and at most MAX_LISTED names; of a whole module only its name."""
        own = [*self.taken, *self.skipped, *self.missing]
        there = [*self.taken, *self.skipped, *self.unused]
        yield (
            f"starting from {self.source}: {len(self.taken)} of the model's {len(own)} tensors loaded, "
            f"{self.parameters_loaded:,} of its {self.parameters:,} parameters ({_percent(self.share)})"
        )
        if self.left_out:
            yield f"  names in the file begin with {self.left_out!r}, which was left out"
        if self.put_before:
            yield f"  names in the model begin with {self.put_before!r}, which was put before those in the file"
        for shapes, what in (
            (self.reshaped, "reshaped"),
            (self.interpolated, "interpolated for another image size"),
            (self.skipped, "left as initialized, the file has another shape"),
        ):
            if shapes:
                pairs = (f"{name} ({_by(s.file)} there, {_by(s.model)} here)" for name, s in shapes.items())
                yield f"  {what}: {listed(pairs, MAX_LISTED)}"
        for names, among, what in (
            (self.missing, own, "left as initialized, not in the file"),
            (self.unused, there, "in the file, but not in the model"),
        ):
            if names:
                yield f"  {what}: {listed(collapse_modules(names, among), MAX_LISTED)}"


def _percent(share: float) -> str:
    return "100%" if share == 1 else f"{min(100 * share, 99.99):.2f}%"


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def collapse_modules(names: Collection[str], among: Iterable[str]) -> list[str]:
    """The same names, those of a module as one where all that are `among` its are there: ['fc'] for fc.weight and
    fc.bias."""
    sizes = Counter(module for name in among for module in _modules_around(name))
    counts = Counter(module for name in names for module in _modules_around(name))
    whole = {module for module, count in counts.items() if count == sizes[module]}
    return list(dict.fromkeys(next((m for m in _modules_around(name) if m in whole), name) for name in names))


def _modules_around(name: str) -> list[str]:
    """The names of the modules that a tensor is in, the outermost first."""
    return list(accumulate(name.split(".")[:-1], "{}.{}".format))


# -- loading -------------------------------------------------------------------------------------------------
def transfer(model: nn.Module, weights: Tensors, *, frozen: Sequence[str] = (), least: float = 0.0) -> Transfer:
    """Load all of the weights that match parameters and buffers of the model by name and shape.

    frozen: names of modules that must be loaded whole; least: which share of the model's parameters must be loaded.
    Numbers are cast to the model's precision. Raises UserError if that is not so, or nothing matches.
    """
    own, match = _match(model, weights)
    result = _compare(model, own, match, weights, frozen, least)
    with torch.no_grad():
        for name in result.taken:
            value = weights[match.names[name]]
            if is_extra_state(name):
                _set_extra_state(model, name, value)
                continue
            if name in result.interpolated:
                value = interpolate_positions(value, own[name].shape[1])
            _copy(name, own[name], value)
    return result


def _copy(name: str, own: Tensor, found: Tensor) -> None:
    """Raises UserError for what has no numbers to train with."""
    try:
        own.copy_(found.reshape(own.shape))
    except RuntimeError as error:  # of the meta device, or of a type that torch cannot convert
        raise UserError(f"{name} cannot be loaded: {first_line(error)}") from error
    if not own.isfinite().all():
        raise UserError(f"{name} has values that are not finite, as a run that diverged leaves them; use other weights")


def _set_extra_state(model: nn.Module, name: str, value: Tensor) -> None:
    """Raises UserError for what the module does not take."""
    try:
        model.get_submodule(name.rpartition(".")[0]).set_extra_state(value)
    except Exception as error:  # of the user's own set_extra_state
        raise UserError(f"{name} cannot be loaded: {first_line(error)}") from error


def plan_transfer(model: nn.Module, weights: Tensors, *, frozen: Sequence[str] = (), least: float = 0.0) -> Transfer:
    """The result that `transfer` would have, from the shapes alone. Raises UserError."""
    own, match = _match(model, weights)
    return _compare(model, own, match, weights, frozen, least)


def _match(model: nn.Module, weights: Tensors) -> tuple[dict[str, Tensor], Match]:
    """The model's tensors by name, what modules add to them too, and which of the file's is which."""
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return own, _matcher(model, own, weights).best()


def _matcher(model: nn.Module, own: Tensors, weights: Tensors) -> Matcher:
    def fits(name: str, value: Tensor) -> bool:
        return fit_of(name, Shapes(tuple(value.shape), tuple(own[name].shape))) is not None

    return Matcher(own, _sizes(model), weights, fits)


def _sizes(model: nn.Module) -> dict[str, int]:
    return {name: parameter.numel() for name, parameter in model.named_parameters(remove_duplicate=False)}


def _compare(
    model: nn.Module, own: Tensors, match: Match, weights: Tensors, frozen: Sequence[str], least: float
) -> Transfer:
    taken: dict[Fit, dict[str, Shapes]] = {fit: {} for fit in Fit}
    skipped: dict[str, Shapes] = {}
    for name, there in match.names.items():
        value = weights[there]
        if is_extra_state(name):  # of any type and shape that the module takes
            taken[Fit.SAME][name] = Shapes(tuple(value.shape), tuple(value.shape))
            continue
        if own[name].is_floating_point() and not value.is_floating_point():
            raise UserError(f"{name} is not of floating point numbers: quantized weights cannot be trained further")
        shapes = Shapes(tuple(value.shape), tuple(own[name].shape))
        fit = fit_of(name, shapes)
        (skipped if fit is None else taken[fit])[name] = shapes
    sizes, used = _sizes(model), set(match.names.values())
    result = Transfer(
        loaded=tuple(taken[Fit.SAME]),
        reshaped=taken[Fit.RESHAPED],
        interpolated=taken[Fit.INTERPOLATED],
        skipped=skipped,
        unused=tuple(name for name in weights if name not in used),
        missing=tuple(name for name in own if name not in match.names),
        left_out=match.left_out,
        put_before=match.put_before,
        parameters_loaded=match.parameters,
        parameters=sum(sizes.values()),
    )
    # Counters of BatchNorm have the same shape in every model.
    if sizes.keys().isdisjoint(result.taken) or result.share < least:
        wanted = math.ceil(least * result.parameters)
        prefixes = _matcher(model, own, weights).unknown_prefixes(wanted)
        raise UserError(_too_little(type(model).__name__, list(own), list(weights), result, least, prefixes))
    _refuse_random_frozen(result, own, frozen)
    return result


def _refuse_random_frozen(result: Transfer, own: Tensors, frozen: Sequence[str]) -> None:
    """What is not trained must have been. Counters are left out of old files, and do not matter there."""
    left = (name for name in (*result.skipped, *result.missing) if not is_extra_state(name))
    new = [name for name in left if own[name].is_floating_point()]
    for module in frozen:
        if random := [name for name in new if f"{name}.".startswith(f"{module}.")]:
            lacking = listed((_misfit(name, result) for name in random), 5)
            raise UserError(
                f"{module} is to be frozen, but would be left with random numbers in {lacking}; "
                "use weights that have all of it, or leave it out of freeze_modules"
            )


def _misfit(name: str, result: Transfer) -> str:
    if (shapes := result.skipped.get(name)) is not None:
        return f"{name} ({_by(shapes.file)} in the file, {_by(shapes.model)} in the model)"
    return f"{name} (not in the file)"


def _too_little(
    kind: str, own: Sequence[str], there: Sequence[str], result: Transfer, least: float, prefixes: Sequence[str]
) -> str:
    """What does not fit, and what helps. own, there: the names in the model and in the file."""
    if result.parameters_loaded == 0:
        message = f"nothing fits {kind}: there are {listed(there, 3)}, the model has {listed(own, 3)}"
    else:
        message = (
            f"only {result.parameters_loaded:,} of the {result.parameters:,} parameters of {kind} "
            f"({_percent(result.share)}) would be loaded, less than {least:.0%}"
        )
        if result.missing:
            message += f"; not in the file are {listed(collapse_modules(result.missing, own), MAX_TABLE)}"
        if result.unused:
            message += f"; only in the file are {listed(collapse_modules(result.unused, there), MAX_TABLE)}"
    if result.skipped:
        message += f"; of another shape are {listed((_misfit(name, result) for name in result.skipped), MAX_TABLE)}"
    if prefixes:
        without = " or ".join(map(repr, prefixes[:3]))
        return f"{message}; without {without} before the names enough would fit: save the file with such names"
    if result.parameters_loaded == 0:
        return f"{message}; use weights of this architecture"
    return f"{message}; use weights of this architecture, or set min_loaded_fraction where so little is wanted"
