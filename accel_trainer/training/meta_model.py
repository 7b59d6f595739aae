"""A model without values, on the meta device: its shapes, cycles, parameters and memory."""

import pickle
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from accel_trainer.config import Job
from accel_trainer.config.rules import XAVIER_BY_FIRST_RULES
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import first_line
from accel_trainer.training.objectives.base import by_cycle
from accel_trainer.training.objectives.output_layer import WAY_OUT, fit_output_layer
from accel_trainer.training.pretrained.starting_weights import published_weights_args
from accel_trainer.training.runtime.module_state import modules_with_extra_state, refuse_unsavable
from accel_trainer.zoo import registry
from accel_trainer.zoo.blocks import initialize_xavier_uniform
from accel_trainer.zoo.user_models import in_one_line


def make_model(job: Job, num_classes: int) -> nn.Module:
    """The job's model with random weights, on torch's default device. Raises UserError."""
    if registry.takes_only_clips(job.architecture) and not job.video:
        raise UserError(f"architecture: {job.architecture} takes clips: set video to true, or use a model of images")
    args = {**published_weights_args(job), **job.architecture_args}
    if job.is_contrastive:
        # Its output is an embedding, which may have any size.
        num_classes = args.get("num_classes", num_classes)
    model = registry.build(job.architecture, args, num_classes=num_classes, image_size=job.image_size)
    if job.rules < 2 and job.architecture in XAVIER_BY_FIRST_RULES:
        initialize_xavier_uniform(model)
    if not job.is_contrastive and not registry.fits_its_output(job.architecture):
        _fit_output_layer(job, model, num_classes)
    try:
        refuse_unsavable(model, job.architecture)
    except UserError:
        raise
    except Exception as error:  # of the user's own get_extra_state
        raise UserError(f"architecture: {job.architecture}: {in_one_line(error)}") from error
    return model


def _fit_output_layer(job: Job, model: nn.Module, num_classes: int) -> None:
    """As many logits as classes from a model that does not ask how many there are. Raises UserError."""
    try:
        with torch.no_grad():
            fit_output_layer(model, num_classes, lambda: _forward_on_meta(model, job, 2), cycle_axis(model))
    except UserError:
        raise
    except Exception as error:
        raise _user_error(error, job, 2) from error


def meta_model(job: Job, num_classes: int, num_images: int) -> tuple[nn.Module, int]:
    """The model on the meta device, and of how many cycles it gives logits, or embeddings.

    num_images: those of one forward pass. Raises UserError for shapes that cannot be trained.
    """
    try:
        with torch.device("meta"):
            return _model_and_cycles(job, num_classes, num_images)
    except UserError:
        if not registry.is_others(job.architecture):
            raise
        return _model_and_cycles(job, num_classes, num_images)  # others' code may need values


def _model_and_cycles(job: Job, num_classes: int, num_images: int) -> tuple[nn.Module, int]:
    try:
        model = make_model(job, num_classes)
    except NotImplementedError:
        # RegNets compute their widths with tensors, which the meta device cannot do.
        with torch.device("cpu"):
            model = make_model(job, num_classes)
    return model, cycles_of(job, model, num_classes, num_images if job.video else num_images * job.views_per_image)


def cycles_of(job: Job, model: nn.Module, num_classes: int, num_examples: int = 2) -> int:
    """Of how many cycles a model gives logits, or embeddings, in training; the model stays as it is.

    Raises UserError for a model that does not work with the job's images, or gives something else.
    """
    num_examples = min(num_examples, 2)
    try:
        with torch.no_grad():
            output = meta_pass(model, job, num_examples, only_shapes=True).output
    except Exception as error:
        raise _user_error(error, job, num_examples) from error
    return _num_cycles(job, output, num_examples, num_classes, cycle_axis(model))


class _NormsByShape(TorchDispatchMode):
    """Answers batch norms on the meta device with what they give for these shapes, and leaves their statistics.

    torch has no such function of its own: it computes each by some fifteen operations in Python, which takes
    most of the time of a pass. What does not fit is refused before this is asked.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.native_batch_norm.default and args[0].is_meta:
            images = args[0]
            statistics = images.new_empty(images.shape[1])
            return torch.empty_like(images), statistics, statistics.clone()
        return func(*args, **(kwargs or {}))


def activation_bytes(job: Job, model: nn.Module, num_examples: int) -> int:
    """What a forward pass of a model in training keeps for the backward pass, in float32, weights that it needs
    included. What several layers keep of the same tensor counts once.
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no other takes its place

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        _forward_on_meta(model, job, num_examples)
    return sum(storage.nbytes() for storage in kept.values())


def _forward_on_meta(model: nn.Module, job: Job, num_examples: int) -> object:
    """What a model gives on the meta device, or if others have written it and it needs values, on the CPU."""
    return meta_pass(model, job, num_examples).output


@dataclass(frozen=True)
class MetaPass:
    """A forward pass with copies of a model's parameters and buffers, by name: as they were, and what is there after
    it. Those that the pass has changed in place are the same tensors. draws: whether it has drawn from a generator of
    the host, on which what it computes may depend."""

    output: Any
    given: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    draws: bool = False

    def gradients(self, outputs: Sequence[Tensor]) -> dict[str, Tensor | None]:
        """Those of all trained parameters, in a backward pass from the sum of some of its outputs; None for a parameter
        that these do not depend on."""
        trained = {name: copy for name, copy in self.given.items() if copy.requires_grad}
        total = torch.stack([output.float().sum() for output in outputs]).sum()
        found = torch.autograd.grad(total, list(trained.values()), allow_unused=True) if trained else ()
        return dict(zip(trained, found, strict=True))


def meta_pass(
    model: nn.Module, job: Job, num_examples: int, *, seed: int | None = None, only_shapes: bool = False
) -> MetaPass:
    """What a model in training does with examples that are zero on the meta device, or if others have written it and it
    needs values, on the CPU. It stays as it is. seed: what torch's generators begin with in it. only_shapes: nothing
    else is asked; buffers may stay as they were, and a backward pass is not possible."""
    by_shape = _NormsByShape() if only_shapes else nullcontext()  # type: ignore[no-untyped-call]
    try:
        with by_shape:
            return _forward_on(model, job, num_examples, torch.device("meta"), seed)
    except Exception:
        if not registry.is_others(job.architecture):
            raise
        return _forward_on(model, job, num_examples, torch.device("cpu"), seed)


def _forward_on(model: nn.Module, job: Job, num_examples: int, device: torch.device, seed: int | None) -> MetaPass:
    frames = (job.views_per_image,) if job.video else ()
    given = {
        name: t.to(device) if t.device != device else t.clone()
        for name, t in (*model.named_parameters(), *model.named_buffers())
    }
    parts = [model.get_submodule(name) for name in modules_with_extra_state(model)]
    extra = [deepcopy(part.get_extra_state()) for part in parts]
    model.train()
    try:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            examples = torch.zeros(num_examples, *frames, 3, job.image_size, job.image_size)
            if seed is not None:
                torch.manual_seed(seed)
            after, before_pass = dict(given), _generators()
            output = torch.func.functional_call(model, after, (examples,))
            return MetaPass(output, given, after, draws=_generators() != before_pass)
    finally:
        for part, before in zip(parts, extra, strict=True):
            part.set_extra_state(before)


def _generators() -> tuple[Any, ...]:
    """The states of those from which a model may draw on the host."""
    of_numpy = pickle.dumps(np.random.get_state(legacy=False))  # to print it takes milliseconds
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), of_numpy


def _user_error(error: Exception, job: Job, num_examples: int) -> UserError:
    reason = in_one_line(error) if registry.is_others(job.architecture) else first_line(error)
    if num_examples == 1 and "more than 1 value per channel" in str(error):
        return UserError(
            f"batch_size: {job.architecture} has BatchNorm, which needs more than one image for each process "
            "and accumulation step"
        )
    if job.video:
        return UserError(
            f"video: {job.architecture} does not take clips of {job.views_per_image} frames "
            f"(batch, frames, 3, {job.image_size}, {job.image_size}): {reason}"
        )
    return UserError(f"image_size: {job.architecture} does not work with images of {job.image_size} pixels: {reason}")


def _num_cycles(job: Job, output: object, num_examples: int, num_classes: int, axis: int) -> int:
    """The number of cycles of an output. Raises UserError if it is not logits, or embeddings, of these examples."""
    architecture = job.architecture
    main = getattr(output, "logits", None) if isinstance(output, tuple) else output  # named, of auxiliary heads
    if not isinstance(main, Tensor):
        raise UserError(f"architecture: {architecture} gives something of type {type(output).__name__}, not logits")
    if not (2 <= main.dim() <= 4 and len(main) == num_examples):
        raise UserError(
            f"architecture: {architecture} gives a tensor {tuple(main.shape)} for {num_examples} images; it must be "
            "(batch, classes), (batch, cycles, classes) or (batch, cycles, heads, classes)"
        )
    cycles, units = by_cycle(main, axis).shape[1::2]
    if units != num_classes and not job.is_contrastive:
        raise UserError(
            f"architecture: {architecture} gives {units} logits, but there are {num_classes} classes; {WAY_OUT}"
        )
    return cycles


def cycle_axis(model: nn.Module) -> int:
    """Where a model's output of three dimensions has the cycles: 1, or what its attribute `cycle_axis` says."""
    axis = getattr(model, "cycle_axis", 1)
    if axis not in (1, 2):
        raise UserError(f"architecture: {type(model).__name__}.cycle_axis is {axis!r}; it can be 1 or 2")
    return 2 if axis == 2 else 1


MAX_LINES = 24


def model_summary(model: nn.Module, num_classes: int, image_size: int) -> str:
    """Its parts with their types and numbers of parameters, and the sum; at most MAX_LINES parts."""
    parts = [(name, type(part).__name__, count_parameters(part)) for name, part in model.named_children()]
    shown = parts[:MAX_LINES]
    width = max((len(name) for name, _, _ in shown), default=4)
    kind_width = max((len(kind) for _, kind, _ in shown), default=4)
    lines = [f"{type(model).__name__}: {image_size}x{image_size} pixels to {num_classes} classes"]
    lines += [f"  {name:<{width}}  {kind:<{kind_width}}  {count:>13,}" for name, kind, count in shown]
    if len(parts) > len(shown):
        lines.append(f"  ... and {len(parts) - len(shown)} more")
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lines.append(f"  {count_parameters(model):,} parameters, {trainable:,} of them trained")
    return "\n".join(lines)


def count_parameters(module: nn.Module) -> int:
    """The number of values in all parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
