"""Whether an observer goes by shape or by texture where they contradict each other (Geirhos et al., 2019)."""

import re
from collections.abc import Sequence

import numpy as np

from accel_trainer.core.errors import UserError
from accel_trainer.measures.accuracy import share
from accel_trainer.measures.consistency import picture_of
from accel_trainer.measures.factor import Factor
from accel_trainer.measures.figures import Figure
from accel_trainer.measures.trials import Trials

# bird2-clock3.png: the shape of a bird, the texture of a clock.
_PICTURE = re.compile(r"[a-z]+\d*-([a-z]+)\d*\.[a-z]+", re.IGNORECASE)


def texture_of(trials: Trials) -> Factor:
    """The category of each image's texture: the condition `texture`, or what its published name says
    (bird2-clock3.png). Raises UserError for other names."""
    if "texture" in trials.conditions:
        return trials.conditions["texture"]
    textures = list[str]()
    for level in trials.image.levels:
        if (picture := _PICTURE.fullmatch(picture_of(level).rpartition("/")[2])) is None:
            raise UserError(
                f"the texture of image {level!r} is not known",
                hint="shape bias is of images called as bird2-clock3.png, or with a condition `texture`",
            )
        textures.append(picture[1])
    found = Factor.of(textures)
    return Factor(found.codes[trials.image.codes], found.levels)


def shape_bias(trials: Trials, by: Sequence[str] | None = None) -> list[Figure]:
    """`shape_bias` (0..1): of the answers that were the image's shape or its texture, the share that were the shape;
    `cue_answers` (0..1): of all answers, the share that were either.

    The true class is that of the shape. Images whose shape and texture are of the same category do not count. n: the
    answers that the share is of. by: conditions; None: all, but for the texture.
    """
    texture = texture_of(trials)
    differ = ~trials.true_class.equals(texture)
    shape = trials.response.equals(trials.true_class)
    other = trials.response.equals(texture)
    names = [name for name in trials.conditions if name != "texture"] if by is None else by
    figures = list[Figure]()
    for cell, rows in trials.cells(names):
        conflicts = rows[differ[rows]]
        right, wrong = int(np.sum(shape[conflicts])), int(np.sum(other[conflicts]))
        figures.append(share(cell, "shape_bias", right, right + wrong))
        figures.append(share(cell, "cue_answers", right + wrong, len(conflicts)))
    return figures
