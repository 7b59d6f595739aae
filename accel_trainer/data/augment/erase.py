"""Random erasing (Zhong et al. 2020)."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.data.augment.effect import Rows, SimpleEffect, change_rows, inside
from accel_trainer.data.rng.draws import Draws, Keys, Parameters, between, which
from accel_trainer.data.rng.random_fields import RandomField, normal_box, normal_field

# torchvision's RandomErasing.
PROBABILITY = 0.5
AREA = (0.02, 0.33)
RATIO = (0.3, 3.3)
TRIES = 10

Boxes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EraseParameters(Parameters):
    """box: top, bottom, left and right, int64 (rows, 4), all 0 for none; key: of random pixels."""

    box: Boxes
    key: Keys


class RandomErase(SimpleEffect):
    """Fill a random box of half of the images: 2 to 33% of the area, as torchvision's RandomErasing draws it.

    value: a number, one for each channel, or "random" for pixels from `random_pixels`: normal, with mean 0 and
    standard deviation 1, as torchvision's.
    """

    def __init__(
        self,
        image_size: int,
        value: float | list[float] | Literal["random"],
        random_pixels: RandomField = normal_field,
    ) -> None:
        self.image_size = image_size
        self.value = value
        self.random_pixels = random_pixels

    def draw(self, draws: Draws) -> EraseParameters:
        """A box for each row: the first of TRIES that is smaller than the image."""
        numbers = draws.uniforms("erase", 2 * TRIES + 3)
        area = self.image_size**2 * between(*AREA, numbers[:, :TRIES])
        low, high = (math.log(ratio) for ratio in RATIO)
        ratio = np.exp(between(low, high, numbers[:, TRIES : 2 * TRIES]))
        height, width = (np.round(np.sqrt(side)).astype(np.int64) for side in (area * ratio, area / ratio))
        fits = (height < self.image_size) & (width < self.image_size)
        first = np.argmax(fits, axis=1)[:, None]
        height, width = (np.take_along_axis(side, first, axis=1)[:, 0] for side in (height, width))
        is_erased = fits.any(axis=1) & (numbers[:, -1] < PROBABILITY)
        top, left = (
            which(numbers[:, column], self.image_size - side + 1) for column, side in ((-3, height), (-2, width))
        )
        box = np.stack([top, top + height, left, left + width], axis=1)
        return EraseParameters(np.where(is_erased[:, None], box, 0), draws.keys("erase pixels"))

    @property
    def is_elementwise(self) -> bool:
        """Where boxes are filled one by one."""
        return self.value != "random" or self.random_pixels is normal_field

    def apply(self, images: Tensor, fetched: EraseParameters) -> Tensor:
        """Fill the boxes with `value`."""
        rows = np.flatnonzero(fetched.box.any(axis=1))
        if images.device.type == "cpu" and self.is_elementwise:
            return self._erase_boxes(images, rows, fetched)
        return change_rows(images, rows, self._erase, fetched.box, fetched.key)

    def _erase_boxes(self, images: Tensor, rows: Rows, fetched: EraseParameters) -> Tensor:
        """Box by box, with no more than the pixels in it: on a GPU each would be work of its own."""
        channels, height, width = images.shape[1:]
        for row, (top, bottom, left, right) in zip(rows.tolist(), fetched.box[rows].tolist(), strict=True):
            if self.value == "random":
                pixels = normal_box(fetched.key[row : row + 1], (channels, height, width), (top, bottom, left, right))
            else:
                pixels = self._pixels(images, fetched.key)
            images[row, :, top:bottom, left:right] = pixels
        return images

    def _erase(self, images: Tensor, box: Boxes, key: Keys) -> Tensor:
        return torch.where(inside(box, images), self._pixels(images, key), images)

    def _pixels(self, images: Tensor, key: Keys) -> Tensor:
        if self.value == "random":
            return self.random_pixels(key, tuple(images.shape[1:]), images.device)
        values = self.value if isinstance(self.value, list) else [self.value] * 3
        return torch.tensor(values, dtype=images.dtype).view(3, 1, 1).to(images.device, non_blocking=True)
