"""From stored pixels to what a model sees: views of an image, effects on them, mixtures of images.

Everything is drawn first, for all rows of a batch at once; then images are rendered, some at a time. What is done to
floats can be done by the loader's threads or on the training's device, with the same code and the same result.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.core.spans import Phase, span
from accel_trainer.data.augment import stages
from accel_trainer.data.augment.effect import Effect, Rows
from accel_trainer.data.augment.geometry import (
    IMAGENET,
    Crop,
    Statistics,
    byte_scale_and_shift,
    cut,
    normalize,
    normalize_bytes,
    normalized,
    to_uint8,
)
from accel_trainer.data.augment.mixing import MixedLabels, Mixer, MixParameters, mix
from accel_trainer.data.augment.occlusion import OcclusionParameters
from accel_trainer.data.augment.policies import Policy, PreparedOperations, apply_to_all
from accel_trainer.data.augment.resizing import Filter
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.native.images import TOGETHER, Images
from accel_trainer.data.native.rows import Stages
from accel_trainer.data.native.stored import StoredCuts
from accel_trainer.data.partial_decode import PartialDecoder
from accel_trainer.data.precision import exact_float32
from accel_trainer.data.rng.draws import DrawRules, Draws, Numbers, Parameters
from accel_trainer.data.shared_work import Buffers

# Of one shape, to be used again: as many as there are threads of a loader.
_MAX_ROOMS = 8


@dataclass(frozen=True)
class Augmentations:
    """What is done to the images of a split, in this order. crop and policy: on uint8 pixels, as are effects before the
    policy, of which there are none without it; effects: on floats in 0..1; normalization by the statistics;
    last_effects: on normalized images; mixer: on those too, each with the one before it in the global batch.
    """

    crop: Crop
    before_policy: Sequence[Effect] = ()
    policy: Policy[Any] | None = None
    effects: Sequence[Effect] = ()
    statistics: Statistics = IMAGENET
    last_effects: Sequence[Effect] = ()
    mixer: Mixer | None = None


@dataclass(frozen=True)
class ViewParameters:
    """What was drawn for some rows: numbers of the crop, parameters of the policy and of each effect."""

    crop: Numbers
    before_policy: tuple[Parameters, ...]
    policy: Parameters | None
    effects: tuple[Parameters, ...]
    last_effects: tuple[Parameters, ...]

    def __getitem__(self, rows: slice | Rows) -> Self:
        return type(self)(
            crop=self.crop[rows],
            before_policy=_rows_of(self.before_policy, rows),
            policy=None if self.policy is None else self.policy[rows],
            effects=_rows_of(self.effects, rows),
            last_effects=_rows_of(self.last_effects, rows),
        )


def _rows_of(effects: tuple[Parameters, ...], rows: slice | Rows) -> tuple[Parameters, ...]:
    return tuple([effect[rows] for effect in effects]) if effects else ()


@dataclass(frozen=True)
class Inputs:
    """A batch on its way to the model."""

    images: Tensor
    finish: Callable[[Tensor], Tensor] | None = None  # what is left to be done on the device

    def on(self, device: torch.device | str) -> Tensor:
        """float32 (examples, 3, size, size), of clips (clips, frames, 3, size, size), on the device."""
        with span(Phase.COPY):
            images = self.images.to(device, non_blocking=True)
        if self.finish is None:
            return images
        with span(Phase.AUGMENTATION), exact_float32(images):
            return self.finish(images)


class Views:
    """How the images of a split become what the model sees.

    as_clip: the views of an image are the frames of one example; else each view is an example. on_device: floats are
    made on the device, from uint8 batches; else by the loader's threads.
    """

    def __init__(
        self, how: Augmentations, rules: DrawRules | None = None, *, as_clip: bool = False, on_device: bool = False
    ) -> None:
        self.crop, self.before_policy, self.policy = how.crop, tuple(how.before_policy), how.policy
        self.effects, self.last_effects, self.mixer = tuple(how.effects), tuple(how.last_effects), how.mixer
        self.statistics = how.statistics
        self.rules = rules or DrawRules()
        self.image_size, self.num_views = how.crop.image_size, self.rules.num_views
        self.as_clip, self.on_device = as_clip, on_device
        self._rooms: dict[torch.Size, deque[Tensor]] = {}
        self._is_elementwise = stages.are_elementwise((*self.effects, *self.last_effects))
        # How the library multiplies depends on where in a batch an image lies: so by image, or as many as stay in the
        # processor's caches.
        self._in_caches = max(1, TOGETHER // (12 * self.image_size**2))
        self._finished_at_once = self._in_caches if self._is_elementwise else self.num_views

    @property
    def all_effects(self) -> tuple[Effect, ...]:
        """All effects, in their order."""
        return (*self.before_policy, *self.effects, *self.last_effects)

    @property
    def examples_per_image(self) -> int:
        """For how many examples, each with a label, an image stands."""
        return 1 if self.as_clip else self.num_views

    # -- drawing ------------------------------------------------------------------------------------------------

    def draws(self, plan: BatchPlan, indices: npt.NDArray[np.int64]) -> Draws:
        """The random numbers of some images of a plan, a row for each of their views."""
        return self.rules.draws(plan.epoch, plan.step, indices)

    def draw(self, draws: Draws) -> ViewParameters:
        """What is done to each view, one row each; mixtures are apart, in `draw_mixing`."""
        return ViewParameters(
            crop=self.crop.draw(draws),
            before_policy=tuple(effect.draw(draws) for effect in self.before_policy),
            policy=None if self.policy is None else self.policy.draw(draws),
            effects=tuple(effect.draw(draws) for effect in self.effects),
            last_effects=tuple(effect.draw(draws) for effect in self.last_effects),
        )

    def prepare(self, drawn: ViewParameters) -> ViewParameters:
        """What was drawn, with what the compiled kernel is told of it: once for a batch, and not for each part of it.

        Raises UserError for an unreadable PNG."""
        size = self.image_size, self.image_size
        return replace(
            drawn,
            before_policy=stages.prepared(self.before_policy, drawn.before_policy),
            policy=None if self.policy is None else self.policy.prepare(drawn.policy, size),
            effects=drawn.effects if self.on_device else stages.prepared(self.effects, drawn.effects),
        )

    def draw_mixing(self, mixer: Mixer, draws: Draws) -> MixParameters:
        """One mixture for each row; the frames of a clip, which has one label, are mixed alike."""
        return mixer.draw(replace(draws, view_dependence=True) if self.as_clip else draws)

    # -- making -------------------------------------------------------------------------------------------------

    def empty(self, num_images: int, buffers: Buffers | None = None) -> Tensor:
        """Room for what `render` makes of so many images: uint8 or float32 (rows, 3, image_size, image_size).

        buffers: where the memory comes from, and goes back to when no tensor uses it anymore.
        """
        shape = (num_images * self.num_views, 3, self.image_size, self.image_size)
        dtype = torch.uint8 if self.on_device else torch.float32
        return torch.empty(shape, dtype=dtype) if buffers is None else buffers.empty(shape, dtype)

    def render(self, images: Images, drawn: ViewParameters, out: Tensor) -> None:
        """Write the views of some images, in their order: uint8 pixels of any sizes to rows of `empty`."""
        room = self.room(out)
        self.cut(images, drawn, room)
        self.finish(room, drawn, out)
        self.leave(room, out)

    def room(self, out: Tensor) -> Tensor:
        """Where rows are cut to that become `out`: this itself, or uint8 of its shape where more is done to them."""
        if self.on_device or self.ends_with_cut:
            return out
        try:
            return self._rooms[out.shape].popleft()
        except (KeyError, IndexError):
            return torch.empty(out.shape, dtype=torch.uint8)

    def leave(self, room: Tensor, out: Tensor) -> None:
        """Give a room back that is no longer used: the system takes as much memory, and gives it anew, while the
        interpreter's lock is held."""
        if room is not out:
            self._rooms.setdefault(room.shape, deque(maxlen=_MAX_ROOMS)).append(room)

    @cached_property
    def ends_with_cut(self) -> bool:
        """Whether nothing is done to rows but to cut them out and normalize them, here."""
        return not (self.on_device or self.policy or self.effects or self.last_effects)

    @property
    def are_cut_in_kernel(self) -> bool:
        """Whether the compiled kernel resizes as they are resized."""
        return self.crop.filter is Filter.BILINEAR

    @property
    def _byte_scale_and_shift(self) -> tuple[float, ...] | None:
        """By what cutting normalizes, if it does."""
        return byte_scale_and_shift(self.statistics) if self.ends_with_cut else None

    def cut(self, images: Images, drawn: ViewParameters, room: Tensor) -> None:
        """Write the views of some images to their rows of the room, as they are before the policy and the effects."""
        statistics = self.statistics if self.ends_with_cut else None
        cut(images, self.crop.cuts(images, drawn.crop), room, statistics, self.crop.filter)

    def stages(self, drawn: ViewParameters) -> Stages | None:
        """All that is done to rows once they are cut, as the compiled kernel is told of it; None where torch has a part
        in it."""
        policy, effects, parameters = drawn.policy, self.effects, drawn.effects
        if self.on_device:
            effects, parameters = (), ()
        elif self.last_effects:
            return None
        before = stages.table_of(self.before_policy, drawn.before_policy)
        after = stages.table_of(effects, parameters)
        if (self.before_policy and before is None) or (effects and after is None):
            return None
        how = Stages(before=before, after=after)
        if isinstance(policy, PreparedOperations):
            how = replace(how, steps=policy.steps, is_known=policy.is_known)
        elif policy is not None:
            return None
        if self.on_device:
            return how
        if effects:
            return replace(how, statistics=(*self.statistics.mean, *self.statistics.std))
        return replace(how, byte_scale_and_shift=byte_scale_and_shift(self.statistics))

    def cut_stored(self, stored: StoredCuts, images: slice, room: Tensor, first_row: int) -> bool:
        """As `cut`, of some images in a file, to the rows of the room from the first on; whether all are written."""
        return stored.cut(images, room, first_row, self._byte_scale_and_shift)

    def cut_jpegs(
        self, decoder: PartialDecoder, contents: Sequence[bytes], drawn: ViewParameters, room: Tensor
    ) -> npt.NDArray[np.bool_]:
        """As `cut`, of encoded images; of which of them the rows were written, bool (images,). The others are to be
        decoded whole."""
        return decoder.cut(
            contents,
            lambda sizes: self.crop.cuts(sizes, drawn.crop),
            room,
            self._byte_scale_and_shift,
        )

    def finish(self, room: Tensor, drawn: ViewParameters, out: Tensor) -> None:
        """Write to `out` what becomes of the rows that are cut; the room is overwritten."""
        if self.ends_with_cut:
            return
        if self.policy is not None and drawn.policy is not None:
            self._finish_before_policy(room, drawn)
            apply_to_all(self.policy, room, drawn.policy)
        if self.on_device:
            return
        if not (self.effects or self.last_effects):
            normalize_bytes(room, out, self.statistics)
            return
        for start in range(self._finish_covered(room, drawn, out), len(room), self._finished_at_once):
            rows = slice(start, start + self._finished_at_once)
            # Effects that are not elementwise work in memory of their own, where images lie alike.
            into = out[rows] if self._is_elementwise else None
            changed = self._finish(room[rows], self._fetch(drawn[rows]), into)
            if changed is not into:
                out[rows].copy_(changed)

    def _finish_covered(self, room: Tensor, drawn: ViewParameters, out: Tensor) -> int:
        """`finish` in one call for all, where occluders are the only effect before the normalization; how many of the
        rows, from the first, are done."""
        if not self._is_elementwise or (occlude := stages.only_occluders(self.effects)) is None:
            return 0
        done = occlude.cover(room, cast(OcclusionParameters, drawn.effects[0]), out, self.statistics)
        for effect, parameters in zip(self.last_effects, drawn.last_effects, strict=True):
            rows = out[:done]
            changed = effect.apply(rows, effect.fetch(parameters[:done]))
            if changed is not rows:
                rows.copy_(changed)
        return done

    def _finish_before_policy(self, room: Tensor, drawn: ViewParameters) -> None:
        """What effects make of uint8 (rows, 3, image_size, image_size) before the policy, in place."""
        if not self.before_policy:
            return
        done = 0
        if (occlude := stages.only_occluders(self.before_policy)) is not None:
            done = occlude.cover(room, cast(OcclusionParameters, drawn.before_policy[0]))
        at_once = self._in_caches if stages.are_elementwise(self.before_policy) else 1
        for start in range(done, len(room), at_once):
            rows = slice(start, start + at_once)
            fetched = stages.fetched(self.before_policy, [parameters[rows] for parameters in drawn.before_policy])
            if all(map(stages.changes_nothing, fetched)):  # by floats and back the bytes would be the same
                continue
            changed = stages.applied(self.before_policy, room[rows].to(torch.float32).div_(255), fetched)
            room[rows].copy_(to_uint8(changed.mul_(255).round_().clamp_(0, 255)))

    def _fetch(self, drawn: ViewParameters) -> tuple[list[Any], list[Any]]:
        """What the effects before and after normalization need."""
        return stages.fetched(self.effects, drawn.effects), stages.fetched(self.last_effects, drawn.last_effects)

    def _finish(
        self, images: Tensor, fetched: tuple[Sequence[Any], Sequence[Any]], out: Tensor | None = None
    ) -> Tensor:
        """uint8 (rows, 3, height, width) to what the model sees, float32; `out`, where it is given, may be the room for
        it."""
        first, last = fetched
        if self.effects:
            floats = images.to(torch.float32) if out is None else out.copy_(images)
            images = stages.applied(self.effects, floats.div_(255), first)
            images = normalize(images, self.statistics)
        else:
            images = normalized(images, out, self.statistics)
        return stages.applied(self.last_effects, images, last)

    def collate(self, rendered: Tensor, drawn: ViewParameters, mixing: MixParameters | None) -> Inputs:
        """The rendered views of a batch, with what is still to be done to them on the device.

        With `mixing`, the first image is only there for the second to be mixed with.
        """
        if not self.on_device:
            return Inputs(self._to_examples(rendered, mixing))
        first, last = self._fetch(drawn)
        fetched = stages.pinned(first), stages.pinned(last)

        def finish(images: Tensor) -> Tensor:
            return self._to_examples(self._finish(images, fetched), mixing)

        return Inputs(rendered, finish)

    def _to_examples(self, images: Tensor, mixing: MixParameters | None) -> Tensor:
        if mixing is not None:
            images = mix(images[self.num_views :], images[: -self.num_views], mixing)
        return images.unflatten(0, (-1, self.num_views)) if self.as_clip else images

    # -- labels ---------------------------------------------------------------------------------------------------

    def labels(self, labels: npt.NDArray[np.int64]) -> Tensor:
        """Labels of images, int64 (n,), as labels of examples."""
        return torch.from_numpy(np.repeat(labels, self.examples_per_image))

    def mixed_labels(
        self, labels: npt.NDArray[np.int64], before: npt.NDArray[np.int64], mixing: MixParameters
    ) -> MixedLabels:
        """Labels of images, int64 (n,), that are mixed with the ones before them, whose labels are `before`."""
        weight = torch.from_numpy(mixing.weight.astype(np.float32))
        return MixedLabels(
            self.labels(labels), self.labels(before), weight[:: self.num_views] if self.as_clip else weight
        )
