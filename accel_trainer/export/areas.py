"""Which layers stand for which areas of the brain, and which cycle for which time after an image appears."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.evaluation.layers import Activation, activations, chosen, recording
from accel_trainer.export.source import Source

# When they respond, in ms, as CORnet-S is scored (Kubilius, Schrimpf et al. 2019); and how long all cycles take. Of
# CORnet-S the rule gives the published times.
ONSETS_MS = {"V1": 50, "V2": 70, "V4": 90, "IT": 100}
ALL_CYCLES_MS, ONE_CYCLE_MS = 200, 100
MAX_LAYERS = 24

Times = dict[str, list[tuple[int, float, float]]]
"""Of each area (cycle, start, end), in ms after the onset."""


def areas_of(source: Source, given: Mapping[str, str]) -> dict[str, str]:
    """The layer of each area: those that are given, or an area's own where the model has parts of these names.

    Raises UserError for what is no area or no layer.
    """
    if unknown := sorted(given.keys() - ONSETS_MS.keys()):
        raise UserError(f"{unknown[0]!r} is none of {listed(ONSETS_MS)}", option="region")
    names = dict(source.model.named_modules())
    own = {area: f"{area}.output" if f"{area}.output" in names else area for area in ONSETS_MS if area in names}
    wanted = dict(given) or own
    found = {one.module: one for one in chosen(activations(source.model, source.job), list(wanted.values()))}
    for area, layer in wanted.items():
        if layer not in found:
            raise UserError(f"{area}: {layer!r} names a cycle or more; give the layer", option="region")
    return {area: wanted[area] for area in ONSETS_MS if area in wanted}


def times_of(source: Source, areas: Mapping[str, str]) -> Times:
    """When each cycle of an area's layer is, of those that depend on the image; empty where no layer has several."""
    cycles = _seeing_cycles(source.model, list(areas.values()), source.random_inputs(2))
    if not any(one.cycle for one in activations(source.model, source.job) if one.module in areas.values()):
        return {}
    times: Times = {}
    for area, layer in areas.items():
        seeing = cycles[layer]
        step = ALL_CYCLES_MS / len(seeing) if len(seeing) > 1 else ONE_CYCLE_MS
        starts = [ONSETS_MS[area] + place * step for place in range(len(seeing))]
        times[area] = [(cycle, start, start + step) for cycle, start in zip(seeing, starts, strict=True)]
    return times


def _seeing_cycles(model: nn.Module, layers: Sequence[str], inputs: Tensor) -> dict[str, list[int]]:
    """In which cycles what a layer gives is not the same for two images."""
    found: dict[str, list[int]] = {layer: [] for layer in layers}

    def note(layer: str, cycle: int, output: Tensor) -> None:
        if not torch.equal(output[0], output[1]):
            found[layer].append(cycle)

    with torch.no_grad(), recording(model, layers, note, num_examples=len(inputs)):
        model(inputs)
    return found


def layers_to_choose_from(source: Source, given: Sequence[str]) -> tuple[list[str], str]:
    """The layers of which Brain-Score scores each, and that from which behavior is read: those that are given, or parts
    of the model with weights, at most MAX_LAYERS, evenly over its depth; and the last one of a value for each channel.

    Raises UserError for what is no layer.
    """
    found = activations(source.model, source.job)
    modules = dict(source.model.named_modules())
    if given:
        layers = [one.module for one in chosen(found, given)]
    else:
        reached = {one.module for one in found}
        layers = [name for name in _parts(source.model) if name in reached][:-1]
        layers = _evenly(layers) or [found[-1].module]
    layers = list(dict.fromkeys(layers))
    pooled = [one for one in found if _is_pooled(one, modules[one.module]) and not given]
    return layers, (pooled[-1].module if pooled else layers[-1])


def _parts(model: nn.Module) -> list[str]:
    """Parts with weights; of a plain sequence of parts these, and not itself."""
    names = []
    for name, part in model.named_children():
        inside = list(part.named_children()) if isinstance(part, nn.Sequential | nn.ModuleList) else []
        names += [f"{name}.{inner}" for inner, one in inside if any(True for _ in one.parameters())]
        if not inside and any(True for _ in part.parameters()):
            names.append(name)
    return names


def _evenly(names: list[str]) -> list[str]:
    if len(names) <= MAX_LAYERS:
        return names
    return [names[round(place * (len(names) - 1) / (MAX_LAYERS - 1))] for place in range(MAX_LAYERS)]


def _is_pooled(one: Activation, module: nn.Module) -> bool:
    """Whether a layer gives a number for each channel, by no weights."""
    return bool(one.shape) and one.shape[0] == prod(one.shape) and not list(module.parameters()) and not one.cycle
