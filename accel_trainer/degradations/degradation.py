"""What a degradation is: a pure function of an image, a level and a key.

The key follows from the degradation, the level and the name of the image, and from nothing else: every model sees the
same pixels, in whichever batch, process or thread they are made.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accel_trainer.core import keyed_random
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.degradations.keyed_numbers import KeyedNumbers

Pixels = npt.NDArray[np.uint8]
"""(size, size, 3), as an image is after its crop."""
Level = float | str
"""A number, or NONE."""
NONE = "none"
"""The level of every degradation at which nothing is done to an image."""


def level_text(level: Level) -> str:
    """'0.2', '3', 'inf', 'none': the same for 3 and 3.0."""
    if isinstance(level, str):
        return level
    return str(int(level)) if float(level).is_integer() else repr(float(level))


@dataclass(frozen=True)
class Degradation:
    """One kind of degradation.

    name: in the registry, such as imagenet-c/fog. what: the quantity that a level is. levels: those of the
    publication, from the weakest. neutral: the level that gives the image itself, bit for bit; NONE does so as well.
    apply: (pixels, level, random numbers) to other pixels; it leaves those that it is given as they are. between: the
    range of levels that there are, both ends included; None: only `levels` and the neutral one. text: how a
    publication writes its levels. key_name: what keys are made of; the name where it is empty.
    """

    name: str
    what: str
    levels: tuple[float, ...]
    neutral: Level
    apply: Callable[[Pixels, float, KeyedNumbers], Pixels]
    between: tuple[float, float] | None = None
    text: Callable[[float], str] = level_text
    key_name: str = ""

    def condition(self, level: Level) -> "Condition":
        """This degradation at a level. Raises UserError for one that there is not."""
        if level == NONE or level == self.neutral:
            return Condition(self, level)
        is_number = isinstance(level, int | float)
        if is_number and self.between is not None and self.between[0] <= float(level) <= self.between[1]:
            return Condition(self, float(level))
        if is_number and self.between is None and level in self.levels:
            return Condition(self, float(level))
        there_are = (
            listed(map(level_text, self.levels), 20)
            if self.between is None
            else f"numbers from {level_text(self.between[0])} to {level_text(self.between[1])}"
        )
        raise UserError(f"{self.name}: no level {level_text(level)} ({self.what}); there are {there_are}, and {NONE}")

    def condition_called(self, text: str) -> "Condition":
        """At a level as it is written: by its publication (c05), or as a number. Raises UserError."""
        for condition in self.conditions():
            if text in (condition.level_text, level_text(condition.level)):
                return condition
        try:
            return self.condition(float(text))
        except ValueError:
            return self.condition(text)

    def conditions(self) -> list["Condition"]:
        """The neutral level and those of the publication."""
        return [self.condition(level) for level in dict.fromkeys((self.neutral, *self.levels))]


@dataclass(frozen=True)
class Condition:
    """A degradation at one of its levels: a function of images."""

    degradation: Degradation
    level: Level

    @property
    def is_neutral(self) -> bool:
        """Whether images stay as they are."""
        return self.level in (NONE, self.degradation.neutral)

    @property
    def level_text(self) -> str:
        """The level as its publication writes it, such as c05 for a contrast of 5%; one that is not published has all
        its digits, so that no two levels are called the same."""
        if isinstance(self.level, str):
            return self.level
        is_published = self.level in (*self.degradation.levels, self.degradation.neutral)
        return self.degradation.text(self.level) if is_published else level_text(self.level)

    @property
    def name(self) -> str:
        """Such as imagenet-c/fog/3."""
        return f"{self.degradation.name}/{self.level_text}"

    def key(self, image_id: str) -> int:
        """64 bits that all random numbers for an image follow from."""
        name = self.degradation.key_name or self.degradation.name
        return keyed_random.key("degradation", name, level_text(self.level), image_id)

    def degrade(self, image: Pixels, image_id: str) -> Pixels:
        """The degraded image: uint8 of the same shape; at the neutral level the image itself, the same array.

        image: uint8 (size, size, 3), RGB, cropped as a model is given it; it is not changed. image_id: its name, the
        same for every model, such as its path below the data set's folder. Raises ValueError for another shape or
        dtype.
        """
        require_image(image)
        if self.is_neutral:
            return image
        return self.degradation.apply(image, float(self.level), KeyedNumbers(self.key(image_id)))


def require_image(image: Pixels) -> None:
    """Raises ValueError for what is not uint8 (size, size, 3)."""
    height, width, channels = image.shape if image.ndim == 3 else (0, 1, 0)
    if image.dtype != np.uint8 or height != width or channels != 3 or not height:
        raise ValueError(
            f"an image of shape {image.shape} and {image.dtype}; give uint8 (size, size, 3): degrade images after "
            "their crop"
        )


def degrade_by_each(
    image: Pixels, conditions: Iterable[Condition], image_id: str
) -> Iterator[tuple[Condition, Pixels]]:
    """One decoded image under many conditions: (condition, degraded image), one at a time. As `Condition.degrade`."""
    for condition in conditions:
        yield condition, condition.degrade(image, image_id)
