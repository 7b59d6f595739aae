"""The layers of a model, and what each gives in each cycle of a forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.representations.layer_names import layer_and_cycle

# `V1.output` is what area V1 gives, also where it has no part of that name.
_OUTPUT = ".output"
MAX_NAMED = 12


@dataclass(frozen=True)
class Activation:
    """What a layer gives in a cycle, of one image. name: that of the layer, with `-t0`, `-t1`, ... where it is called
    more than once in a forward pass; module: the layer among the model's modules; shape: without the batch."""

    name: str
    module: str
    cycle: int
    shape: tuple[int, ...]


def example(job: Job, num_examples: int = 1) -> Tensor:
    """Zeros in the shape of what a job's model takes: float32 (n, 3, image_size, image_size), or clips (n, frames, 3,
    image_size, image_size)."""
    frames = (job.views_per_image,) if job.video else ()
    return torch.zeros(num_examples, *frames, 3, job.image_size, job.image_size)


def activations(model: nn.Module, job: Job) -> list[Activation]:
    """All that the layers of a model in evaluation mode give, in the order of its modules: one forward pass of an
    example is made. Layers that give no tensor with a row for each image are left out."""
    names = [name for name, _ in model.named_modules() if name]
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in names}

    def note(name: str, cycle: int, output: Tensor) -> None:
        shapes[name].append(tuple(output.shape[1:]))

    two = example(job, 2)  # so that a first dimension of one is not taken for the batch
    with torch.no_grad(), recording(model, names, note, num_examples=2):
        model(two.to(next(model.parameters(), two).device))
    return [
        Activation(name if len(found) == 1 else f"{name}-t{cycle}", name, cycle, shape)
        for name, found in shapes.items()
        for cycle, shape in enumerate(found)
    ]


def chosen(found: Sequence[Activation], words: Sequence[str]) -> list[Activation]:
    """The activations that are called so, each once, in that order: `IT` stands for all cycles of IT, `IT-t2` for one,
    and `IT.output` for what IT gives. They keep the name by which they were asked for. Raises UserError for all words
    that name nothing."""
    named: dict[str, Activation] = {}
    unknown = []
    for word in words:
        if not (matches := _matches(found, word)):
            unknown.append(word)
        named |= {activation.name: activation for activation in matches if activation.name not in named}
    if unknown:
        raise UserError(*(_unknown(found, word) for word in unknown))
    return list(named.values())


def _matches(found: Sequence[Activation], word: str) -> list[Activation]:
    modules = {activation.module for activation in found}
    for layer, cycle in _readings(word):
        module = layer if layer in modules else layer.removesuffix(_OUTPUT)
        matches = [one for one in found if one.module == module and cycle in (None, one.cycle)]
        if matches:
            return [Activation(layer + one.name.removeprefix(module), module, one.cycle, one.shape) for one in matches]
    return []


def _readings(word: str) -> Iterator[tuple[str, int | None]]:
    yield word, None
    yield layer_and_cycle(word)


def _unknown(found: Sequence[Activation], word: str) -> str:
    layer, cycle = layer_and_cycle(word)
    if cycle is not None and (there := _matches(found, layer)):
        return f"layers: {layer} has no cycle {cycle}; it has {listed(one.name for one in there)}"
    layers = list(dict.fromkeys(activation.module for activation in found))
    tops = [name for name in layers if "." not in name]
    near = did_you_mean(layer.removesuffix(_OUTPUT), layers)
    return f"layers: {word!r} is no layer of the model{near}; it has {listed(tops, MAX_NAMED)} and what is in them"


@contextmanager
def recording(
    model: nn.Module, names: Sequence[str], note: Callable[[str, int, Tensor], None], *, num_examples: int | None = None
) -> Iterator[Callable[[], None]]:
    """In this context `note` is called with the output of each of these layers: its name, the cycle (how often the
    layer was called before in this pass) and the tensor, at the moment when the layer gives it: what comes after may
    change it in place. The context gives what is to be called before each pass.

    num_examples: where given, outputs with another first dimension are not noted.
    """
    calls: dict[str, int] = {}

    def hook(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is None or tensor.dim() == 0 or num_examples not in (None, len(tensor)):
            return
        cycle = calls.get(name, 0)
        calls[name] = cycle + 1
        note(name, cycle, tensor)

    with ExitStack() as hooks:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(partial(hook, name))
            hooks.callback(handle.remove)
        yield calls.clear


def first_tensor(output: Any) -> Tensor | None:
    """The output itself, or the first tensor in it; None where there is none."""
    if isinstance(output, Tensor):
        return output
    parts: Sequence[Any] = ()
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, tuple | list):
        parts = output
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)
