"""CutMix (Yun et al. 2019) and MixUp (Zhang et al. 2018): every image with the one before it in the global batch.

The order of a batch is random, so its neighbors are as good as any other pairs, and a process that holds a part of
the batch needs only one image more to make the same mixtures as a process that holds all of it.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from accel_trainer.config.augmentations import Mixing
from accel_trainer.data.augment.effect import column, inside
from accel_trainer.data.rng.draws import Draws, Numbers, Parameters, which


@dataclass(frozen=True)
class MixedLabels:
    """Labels of mixtures: `first` by a weight, `second` by the rest.

    first, second: int64 (n,); weight: float32 (n,) in 0..1.
    """

    first: Tensor
    second: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, some: slice) -> Self:
        return type(self)(self.first[some], self.second[some], self.weight[some])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same on another device."""
        parts = (part.to(device, non_blocking=non_blocking) for part in (self.first, self.second, self.weight))
        return type(self)(*parts)


# Of examples: a class each, int64 (n,), or mixtures of two.
Labels = Tensor | MixedLabels


def repeat_each(labels: Labels, times: int) -> Labels:
    """Every label so many times in succession."""
    if times == 1:
        return labels
    if not isinstance(labels, MixedLabels):
        return labels.repeat_interleave(times)
    parts = (part.repeat_interleave(times) for part in (labels.first, labels.second, labels.weight))
    return MixedLabels(*parts)


def one_hot(labels: Labels, num_classes: int) -> Tensor:
    """Targets that add up to 1, soft ones of mixtures: (n, num_classes)."""
    if not isinstance(labels, MixedLabels):
        return F.one_hot(labels, num_classes)
    weight = labels.weight[:, None]
    return weight * F.one_hot(labels.first, num_classes) + (1 - weight) * F.one_hot(labels.second, num_classes)


@dataclass(frozen=True)
class MixParameters(Parameters):
    """weight: of the image itself, float64 (rows,); box: top, bottom, left and right of what another image covers,
    int64 (rows, 4), empty with MixUp; is_cut: bool (rows,), CutMix or MixUp.
    """

    weight: Numbers
    box: npt.NDArray[np.int64]
    is_cut: npt.NDArray[np.bool_]


class Mixer:
    """CutMix, MixUp, or one of them for each global batch where a job has both."""

    def __init__(self, image_size: int, cutmix: Mixing | None, mixup: Mixing | None) -> None:
        self.image_size = image_size
        self._kinds = [(mixing, is_cut) for mixing, is_cut in ((cutmix, True), (mixup, False)) if mixing]

    def draw(self, draws: Draws) -> MixParameters:
        """A mixture for each row, or one for all rows of the global batch; whether it is CutMix or MixUp is drawn once
        for the global batch."""
        from scipy.special import betaincinv  # needed by few, and it takes a while to import

        mixing, is_cut = self._kind(draws)
        if mixing.per == "batch":
            draws = replace(draws, batch_dependence=True, view_dependence=True)
        numbers = draws.uniforms("mixing", 3)
        weight = betaincinv(mixing.alpha, mixing.alpha, numbers[:, 0])
        box = np.zeros((len(draws), 4), dtype=np.int64)
        if is_cut:
            box = cut_boxes(weight, numbers[:, 1:], self.image_size)
            weight = 1 - (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]) / self.image_size**2
        return MixParameters(weight, box, np.full(len(draws), is_cut))

    def _kind(self, draws: Draws) -> tuple[Mixing, bool]:
        """How to mix, and whether it is by CutMix."""
        if len(self._kinds) == 1:
            return self._kinds[0]
        cutmix, mixup = self._kinds
        return cutmix if draws.for_whole_batch("cutmix or mixup") < 0.5 else mixup


def cut_boxes(weight: Numbers, centers: Numbers, size: int) -> npt.NDArray[np.int64]:
    """Boxes of about 1 - weight of the area, as torchvision's CutMix: top, bottom, left, right, int64 (rows, 4).

    centers: float64 (rows, 2) in 0..1. What sticks out of the image is cut off.
    """
    half = (0.5 * np.sqrt(1 - weight) * size).astype(np.int64)
    row, col = which(centers, size).T
    edges = (row - half, row + half, col - half, col + half)
    return np.stack([np.clip(edge, 0, size) for edge in edges], axis=1)


def mix(images: Tensor, others: Tensor, drawn: MixParameters) -> Tensor:
    """Mix each image with another one: float32 (rows, 3, height, width), both; neither is overwritten."""
    if drawn.is_cut.any():
        return torch.where(inside(drawn.box, images), others, images)
    return torch.lerp(others, images, column(drawn.weight, images))
