"""What was drawn for the views of images, in a few words each: `crop 20x25 at 3,1`, `flipped`, `mudSplash 40%`.

All of it follows from the numbers that a training draws too: nothing is drawn here.
"""

from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from accel_trainer.data.augment.blur import NO_BLUR, BlurParameters
from accel_trainer.data.augment.color import GrayscaleParameters, JitterParameters
from accel_trainer.data.augment.effect import Effect
from accel_trainer.data.augment.erase import EraseParameters
from accel_trainer.data.augment.geometry import CenterCrop
from accel_trainer.data.augment.noise import NoiseParameters
from accel_trainer.data.augment.occlusion import OcclusionParameters
from accel_trainer.data.augment.policies import Mixture, Operations
from accel_trainer.data.native.images import Images
from accel_trainer.data.views import ViewParameters, Views


def drawn_words(views: Views, drawn: ViewParameters, sizes: Sequence[tuple[int, int] | None]) -> list[list[str]]:
    """The words of each row, in the order in which the things are done; none where nothing was.

    sizes: height and width of each image before the crop, of which there are as many rows each as there are views;
    None for one that cannot be decoded, of which no crop is said.
    """
    rows = _crops(views, drawn, sizes)
    _add(rows, views.before_policy, drawn.before_policy)
    if views.policy is not None and drawn.policy is not None:
        for row, words in enumerate(rows):
            words += policy_words(drawn.policy, views.policy, row, views.image_size)
    _add(rows, views.effects, drawn.effects)
    _add(rows, views.last_effects, drawn.last_effects)
    return rows


def _crops(views: Views, drawn: ViewParameters, sizes: Sequence[tuple[int, int] | None]) -> list[list[str]]:
    if isinstance(views.crop, CenterCrop):
        return [[] for _ in sizes for _ in range(views.num_views)]
    table = np.zeros((len(sizes), 6), np.int64)
    table[:, 4:] = [size or (1, 1) for size in sizes]
    cuts = views.crop.cuts(Images(table, None), drawn.crop).tolist()
    is_known = [size is not None for size in sizes for _ in range(views.num_views)]
    return [list(_crop_words(cut)) if known else [] for cut, known in zip(cuts, is_known, strict=True)]


def _crop_words(cut: Sequence[int]) -> Iterator[str]:
    top, left, height, width = cut[:4]
    yield f"crop {width}x{height} at {left},{top}"
    if cut[8]:
        yield "flipped"


def _add(rows: Sequence[list[str]], effects: Sequence[Effect], drawn: Sequence[Any]) -> None:
    for effect, parameters in zip(effects, drawn, strict=True):
        for row, words in enumerate(rows):
            words += effect_words(parameters, effect, row)


@singledispatch
def effect_words(parameters: Any, effect: Any, row: int) -> list[str]:
    """What an effect does to a row, by its kind of parameters."""
    return []


@effect_words.register
def _(parameters: OcclusionParameters, effect: Any, row: int) -> list[str]:
    number = int(parameters.masks[row])
    if number < 0:
        return []
    names = [form.name for form in effect.forms for _ in form.levels]
    return [f"{names[number]} {int(parameters.visibility[row])}%"]


@effect_words.register
def _(parameters: BlurParameters, effect: Any, row: int) -> list[str]:
    sigma = float(parameters.sigma[row])
    return [f"blur {sigma:.2g}"] if sigma > NO_BLUR else []


@effect_words.register
def _(parameters: NoiseParameters, effect: Any, row: int) -> list[str]:
    kind = int(parameters.kind[row])
    return [] if kind < 0 else [f"{effect.noise_types[kind]} noise, ssnr {parameters.ssnr[row]:.2g}"]


@effect_words.register
def _(parameters: JitterParameters, effect: Any, row: int) -> list[str]:
    if parameters.order[row, 0] < 0:
        return []
    brightness, contrast, saturation, hue = parameters.factors[row].tolist()
    return [f"brightness {brightness:.2g}, contrast {contrast:.2g}", f"saturation {saturation:.2g}, hue {hue:+.2f}"]


@effect_words.register
def _(parameters: GrayscaleParameters, effect: Any, row: int) -> list[str]:
    return ["gray"] if parameters.is_gray[row] else []


@effect_words.register
def _(parameters: EraseParameters, effect: Any, row: int) -> list[str]:
    top, bottom, left, right = parameters.box[row].tolist()
    return [f"erased {right - left}x{bottom - top} at {left},{top}"] if bottom > top else []


@singledispatch
def policy_words(parameters: Any, policy: Any, row: int, image_size: int) -> list[str]:
    """What a policy does to a row, by its kind of parameters."""
    return []


@policy_words.register
def _(parameters: Operations, policy: Any, row: int, image_size: int) -> list[str]:
    return [
        _operation(policy, *numbers, image_size)
        for numbers in zip(
            parameters.operation[row].tolist(),
            parameters.magnitude_bin[row].tolist(),
            parameters.sign[row].tolist(),
            strict=True,
        )
    ]


@policy_words.register
def _(parameters: Mixture, policy: Any, row: int, image_size: int) -> list[str]:
    """The share of the image itself, and the names of what is done in each chain."""
    names = list(policy.operations)
    own, *weights = parameters.weights[row].tolist()
    words = [f"{own:.0%} as it is"]
    for chain, weight in enumerate(weights):
        done = parameters.operation[row, chain, : parameters.depth[row, chain]].tolist()
        words.append(f"{weight:.0%} {', '.join(names[number] for number in done)}")
    return words


def _operation(policy: Any, number: int, magnitude_bin: int, sign: int, image_size: int) -> str:
    name, operation = list(policy.operations.items())[number]
    magnitude = operation.magnitude(magnitude_bin, policy.num_bins, (image_size, image_size))
    if not operation.first and not operation.last:
        return str(name)
    return f"{name} {sign * magnitude if operation.signed else magnitude:.2g}"
