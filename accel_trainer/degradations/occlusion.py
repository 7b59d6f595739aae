"""Occluders in front of images, by the code that puts them in front of training images."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from accel_trainer.config.augmentations import Occlusion
from accel_trainer.data.augment.occlusion import Occlude, OcclusionParameters
from accel_trainer.data.occluders.bank import OTHER_NAMES, Form, open_forms
from accel_trainer.data.occluders.synthetic import TODAYS_FORMS
from accel_trainer.data.rng.draws import which
from accel_trainer.degradations.degradation import Degradation, Pixels
from accel_trainer.degradations.keyed_numbers import KeyedNumbers
from accel_trainer.degradations.noise_and_blur import as_batch, as_pixels

# Half of what is left over on both sides of a window: a crop of the center. No flip in either direction.
CENTERED, UNFLIPPED = 0.5, 1.0
UNOCCLUDED = 1.0
Color = Literal["random", "pink_noise"] | list[int]


def occlusion(folder: Path, name: str, color: Color = "random") -> Degradation:
    """One form of occluder by its visibility, a share of 1: which mask is drawn for each image, its window is centered.

    folder: laid out as the Visual Occluders Dataset. name: of the form, today's or the older one, which give the same
    pixels. color: as in a job, of masks without a texture. Levels are those that the folder has. Raises UserError.
    """
    (form,) = open_forms(folder, [name], None)
    section = Occlusion(occluder_dir=str(folder), form=[name], color=[color])
    today = name if name in TODAYS_FORMS else OTHER_NAMES.get(name, name)
    levels = tuple(level / 100 for level in sorted(form.levels, reverse=True) if level < 100)

    @lru_cache(maxsize=4)
    def of_size(size: int) -> Occlude:
        return Occlude(section, size)

    def apply(image: Pixels, visibility: float, numbers: KeyedNumbers) -> Pixels:
        effect = of_size(len(image))
        drawn = _drawn(form, effect.forms[0], visibility, numbers)
        return as_pixels(effect.apply(as_batch(image), effect.fetch(drawn)))

    return Degradation(f"occlusion/{name}", "visibility", levels, UNOCCLUDED, apply, key_name=f"occlusion/{today}")


def _drawn(form: Form, own: Form, visibility: float, numbers: KeyedNumbers) -> OcclusionParameters:
    """Which mask of this visibility is in front of an image, in which color."""
    level = round(100 * visibility)
    return OcclusionParameters(
        masks=np.array([list(own.levels).index(level)]),
        visibility=np.array([level]),
        item=which(numbers.uniform("mask", (1,)), len(form.levels[level])),
        place=np.array([[UNFLIPPED, UNFLIPPED, CENTERED, CENTERED]]),
        crop=np.empty((1, 0)),
        color=np.zeros(1, np.int64),
        rgb=numbers.uniform("color", (1, 3)),
        key=np.array([numbers.key], np.uint64),
        is_flipped=np.zeros(1, np.bool_),
    )
