"""Load trained weights into a model: tensors that fit, with a record of those that do not."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor, nn

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import first_line, listed
from accel_trainer.training.pretrained.weight_files import plain_names, with_plain_names

Tensors = Mapping[str, Tensor]
# How many names a line of the log has.
MAX_LISTED = 10
# Names in the weights that torchvision publishes, and those that its models have by now.
RENAMED_KEYS = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


@dataclass(frozen=True)
class Shapes:
    """The shapes of a tensor in the file and of the tensor of that name in the model."""

    file: tuple[int, ...]
    model: tuple[int, ...]


@dataclass(frozen=True)
class Transfer:
    """What of some weights went into a model. Names are those of the model's state dict; `unused` are the file's.

    loaded: taken as they are; reshaped: taken in another shape with the same meaning; skipped: of another shape, and
    left as initialized; unused: unknown to the model; missing: not in the file, and left as initialized; frozen:
    the modules that are not trained. source: the file, or the name of published weights.
    """

    loaded: tuple[str, ...]
    reshaped: Mapping[str, Shapes]
    skipped: Mapping[str, Shapes]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    frozen: tuple[str, ...] = ()
    source: str = ""

    def as_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def lines(self) -> Iterator[str]:
        """Lines for a log: counts, and at most MAX_LISTED names; of a whole module only its name."""
        own = [*self.loaded, *self.reshaped, *self.skipped, *self.missing]
        there = [*self.loaded, *self.reshaped, *self.skipped, *self.unused]
        num_loaded = len(self.loaded) + len(self.reshaped)
        yield f"starting from {self.source}: {num_loaded} of the model's {len(own)} tensors loaded"
        for shapes, what in (
            (self.reshaped, "reshaped"),
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
        new = [*self.skipped, *self.missing]
        if frozen := [module for module in self.frozen if any(name.startswith(f"{module}.") for name in new)]:
            yield f"  frozen, though not all of it was loaded: {listed(frozen, MAX_LISTED)}"


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
def transfer(model: nn.Module, weights: Tensors) -> Transfer:
    """Load all of the weights that match parameters and buffers of the model by name and shape.

    Numbers are cast to the model's precision. Raises UserError if nothing matches.
    """
    own, found, unused = _pairs(model, weights)
    result = _compare(model, own, found, unused)
    with torch.no_grad():
        for name in (*result.loaded, *result.reshaped):
            _copy(name, own[name], found[name])
    return result


def _copy(name: str, own: Tensor, found: Tensor) -> None:
    """Raises UserError for what has no numbers to train with."""
    try:
        own.copy_(found.reshape(own.shape))
    except RuntimeError as error:  # of the meta device, or of a type that torch cannot convert
        raise UserError(f"{name} cannot be loaded: {first_line(error)}") from error
    if not own.isfinite().all():
        raise UserError(f"{name} has values that are not finite, as a run that diverged leaves them; use other weights")


def plan_transfer(model: nn.Module, weights: Tensors) -> Transfer:
    """The result that `transfer` would have, from the shapes alone. Raises UserError."""
    return _compare(model, *_pairs(model, weights))


def _compare(model: nn.Module, own: Tensors, found: Tensors, unused: Sequence[str]) -> Transfer:
    loaded: list[str] = []
    reshaped: dict[str, Shapes] = {}
    skipped: dict[str, Shapes] = {}
    for name, value in found.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            raise UserError(f"{name} is not of floating point numbers: quantized weights cannot be trained further")
        shapes = Shapes(tuple(value.shape), tuple(own[name].shape))
        if shapes.file == shapes.model:
            loaded.append(name)
        elif _same_layout(shapes.file, shapes.model):
            reshaped[name] = shapes
        else:
            skipped[name] = shapes
    # Counters of BatchNorm have the same shape in every model.
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if parameters.isdisjoint([*loaded, *reshaped]):
        differing = f"; of another shape are {listed(collapse_modules(list(skipped), own), 5)}" if skipped else ""
        raise UserError(
            f"nothing fits {type(model).__name__}: there are {listed([*found, *unused], 3)}, the model has "
            f"{listed(own, 3)}{differing}; use weights of this architecture"
        )
    missing = tuple(name for name in own if name not in found)
    return Transfer(tuple(loaded), reshaped, skipped, tuple(unused), missing)


def _pairs(model: nn.Module, weights: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """The model's tensors by name, the weights for them by the same names, and the names of the other weights."""
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    plain = plain_names(own)
    weights = with_plain_names(weights)
    found, unused = {}, []
    for name, value in weights.items():
        if (known := plain.get(name) or plain.get(_newer_name(name))) is not None:
            found[known] = value
        else:
            unused.append(name)
    # In the order of the model.
    return own, {name: found[name] for name in own if name in found}, unused


def _newer_name(name: str) -> str:
    for old, new in RENAMED_KEYS:
        name = old.sub(new, name)
    return name


def _same_layout(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes differ only in neighboring dimensions that one of them has merged: (10, 512, 1, 1) and
    (10, 512), but not (10, 20) and (20, 10)."""
    steps, others = (set(accumulate(shape, mul)) - {1} for shape in (one, other))
    same_size = torch.Size(one).numel() == torch.Size(other).numel()
    return same_size and (steps <= others or others <= steps)
