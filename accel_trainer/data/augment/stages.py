"""What is done with the effects of one stage, which come one after the other."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from accel_trainer.data.augment.effect import Effect
from accel_trainer.data.augment.occlusion import Occlude, Occluders, OcclusionParameters, PreparedOcclusion
from accel_trainer.data.native.pixels import OccluderTable
from accel_trainer.data.rng.draws import Parameters


def fetched(effects: Sequence[Effect], drawn: Sequence[Parameters]) -> list[Any]:
    """What each effect needs for its parameters."""
    return [effect.fetch(parameters) for effect, parameters in zip(effects, drawn, strict=True)]


def prepared(effects: Sequence[Effect], drawn: tuple[Parameters, ...]) -> tuple[Parameters, ...]:
    """The parameters, with what the compiled kernel is told where occluders are the only effect. Raises UserError."""
    occlude = only_occluders(effects)
    return drawn if occlude is None else (occlude.prepare(cast(OcclusionParameters, drawn[0])),)


def table_of(effects: Sequence[Effect], drawn: Sequence[Parameters]) -> OccluderTable | None:
    """What the compiled kernel is told of the effects, where occluders are the only one and are prepared."""
    prepared = drawn[0] if only_occluders(effects) is not None else None
    return prepared.table if isinstance(prepared, PreparedOcclusion) else None


def only_occluders(effects: Sequence[Effect]) -> Occlude | None:
    """The effect, where it is the only one and puts occluders in front of images."""
    return effects[0] if len(effects) == 1 and isinstance(effects[0], Occlude) else None


def are_elementwise(effects: Sequence[Effect]) -> bool:
    """Whether all are; see `Effect.is_elementwise`."""
    return all(effect.is_elementwise for effect in effects)


def changes_nothing(fetched: Any) -> bool:
    """Whether what an effect has fetched leaves its images as they are."""
    return isinstance(fetched, Occluders) and len(fetched.rows) == 0


def pinned(fetched: list[Any]) -> list[Any]:
    """What effects have fetched, on its way to a GPU, where this process uses one."""
    if not torch.cuda.is_initialized():
        return fetched
    return [part.pinned() if isinstance(part, Occluders) else part for part in fetched]


def applied(effects: Sequence[Effect], images: Tensor, fetched: Sequence[Any]) -> Tensor:
    """The images after all effects, in their order; they may be overwritten."""
    for effect, parameters in zip(effects, fetched, strict=True):
        images = effect.apply(images, parameters)
    return images
