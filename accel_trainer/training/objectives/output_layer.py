"""The layer that gives a model's logits, made to have as many units as there are classes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from accel_trainer.core.errors import UserError
from accel_trainer.training.objectives.base import by_cycle

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WAY_OUT = "let its constructor take `num_classes` and make as many"


def fit_output_layer(model: nn.Module, num_classes: int, forward: Callable[[], object], axis: int) -> str | None:
    """Replace the linear layer or 1x1 convolution that gives the logits by a new one, where it has other units.

    forward: shows the model some examples; axis: of its cycles, see `by_cycle`. The name of the layer, None where it
    was not replaced. What is new begins with torch's weights, from its generator. Raises UserError where the layer
    cannot be found or replaced; what `forward` raises passes.
    """
    called: list[tuple[str, nn.Module]] = []
    hooks = [
        layer.register_forward_hook(lambda *_, named=(name, layer): called.append(named))
        for name, layer in model.named_modules()
        if _is_linear(layer)
    ]
    try:
        output = forward()
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(output, Tensor):
        raise _cannot(model, f"it gives a {type(output).__name__}, whose output layer is not looked for")
    if not 2 <= output.dim() <= 4 or (units := by_cycle(output, axis).shape[-1]) == num_classes:
        return None
    if not called:
        raise _cannot(model, "it calls no linear layer or 1x1 convolution that could be its output layer")
    name, layer = called[-1]
    if not name:
        raise _cannot(model, "it is a single layer")
    _refuse_unless_plain(model, name, layer, units)
    parent, _, own_name = name.rpartition(".")
    setattr(model.get_submodule(parent), own_name, _like(layer, num_classes))
    return name


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, _CONVOLUTIONS) and set(layer.kernel_size) == {1})


def _units(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, _CONVOLUTIONS) else 0


def _refuse_unless_plain(model: nn.Module, name: str, layer: nn.Module, units: int) -> None:
    """Raises UserError for a layer that is more than its weights, or does not give the logits."""
    if _units(layer) != units:
        raise _cannot(
            model, f"the last layer that it calls, {name}, has {_units(layer)} units, and its output has {units}"
        )
    if type(layer) not in (nn.Linear, *_CONVOLUTIONS):
        raise _cannot(model, f"its output layer {name} is a {type(layer).__name__}")
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise _cannot(model, f"its output layer {name} has hooks")
    if isinstance(layer, _CONVOLUTIONS) and layer.groups != 1:
        raise _cannot(model, f"its output layer {name} has {layer.groups} groups")
    if len([other for _, other in model.named_modules(remove_duplicate=False) if other is layer]) > 1:
        raise _cannot(model, f"its output layer {name} is used under another name too")
    for owner, part in model.named_modules():
        if part is not layer and any(value is layer.weight for value in part.parameters(recurse=False)):
            raise _cannot(model, f"its output layer {name} shares its weights with {owner or 'the model itself'}")


def _like(layer: nn.Module, units: int) -> nn.Module:
    """A new layer of the same kind, in the same place and precision."""
    weight = layer.get_parameter("weight")
    with torch.device(weight.device):
        if isinstance(layer, nn.Linear):
            new: nn.Module = nn.Linear(layer.in_features, units, bias=layer.bias is not None)
        elif isinstance(layer, _CONVOLUTIONS):
            kind: Callable[..., nn.Module] = type(layer)
            new = kind(layer.in_channels, units, 1, layer.stride, layer.padding, bias=layer.bias is not None)
        else:
            raise TypeError(f"{type(layer).__name__} is no layer of logits")
    return new.to(weight.dtype).train(layer.training)


def _cannot(model: nn.Module, why: str) -> UserError:
    return UserError(
        f"{type(model).__name__} does not take num_classes, and its output layer cannot be fitted: {why}",
        key="architecture",
        hint=WAY_OUT,
    )
