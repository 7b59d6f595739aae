"""Gaussian blur."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from accel_trainer.config.augmentations import prob_of_each
from accel_trainer.data.augment.effect import SimpleEffect, change_rows, column
from accel_trainer.data.rng.draws import Draws, Numbers, Parameters, between, choose

# Below this (pixels), a pixel's neighbors have no weight that a float32 could hold.
NO_BLUR = 0.02
# A kernel reaches this many standard deviations.
REACH = 3
# SimCLR's (Chen et al. 2020): any sigma of this range, by a kernel of a tenth of the image.
CONTRASTIVE_SIGMAS = (0.1, 2.0)
KERNEL_FRACTION = 0.1


@dataclass(frozen=True)
class BlurParameters(Parameters):
    """sigma: standard deviation in pixels, 0 for none."""

    sigma: Numbers


class GaussianBlur(SimpleEffect):
    """Blur by one of several sigmas: each as often as `probs` says, and none for the rest."""

    def __init__(self, sigmas: Sequence[float], probs: Sequence[float]) -> None:
        self.sigmas = np.array([*sigmas, 0.0])  # the last for -1: none drawn
        self.probabilities = prob_of_each(len(sigmas), list(probs))

    def draw(self, draws: Draws) -> BlurParameters:
        """One of the sigmas, or 0, for each row."""
        return BlurParameters(self.sigmas[choose(draws.uniforms("blur", 1)[:, 0], self.probabilities)])

    def apply(self, images: Tensor, fetched: BlurParameters) -> Tensor:
        """Blur the rows whose sigma is above NO_BLUR."""
        rows = np.flatnonzero(fetched.sigma > NO_BLUR)
        return change_rows(images, rows, gaussian_blur, fetched.sigma)


class FrameBlur(GaussianBlur):
    """Blur of a clip: frame t has sigmas[t], as often as its probability says."""

    def __init__(self, sigmas: Sequence[float], probs: Sequence[float]) -> None:
        self.sigmas = np.array(sigmas)
        self.probs = np.broadcast_to(np.array(probs), self.sigmas.shape)

    def draw(self, draws: Draws) -> BlurParameters:
        """The sigma of its frame, or 0, for each row."""
        frames = draws.views
        is_blurred = draws.uniforms("blur", 1)[:, 0] < self.probs[frames]
        return BlurParameters(np.where(is_blurred, self.sigmas[frames], 0.0))


class ContrastiveBlur(SimpleEffect):
    """The blur of contrastive learning: every image by a sigma of its own."""

    def draw(self, draws: Draws) -> BlurParameters:
        """A sigma, uniform in CONTRASTIVE_SIGMAS, for each row."""
        return BlurParameters(between(*CONTRASTIVE_SIGMAS, draws.uniforms("contrastive blur", 1)[:, 0]))

    def apply(self, images: Tensor, fetched: BlurParameters) -> Tensor:
        """Blur every row, with a kernel of `contrastive_radius`."""
        return gaussian_blur(images, fetched.sigma, contrastive_radius(images.shape[-1]))


def contrastive_radius(image_size: int) -> int:
    """11 at 224 pixels: a kernel of 23, as SimCLR's."""
    return max(1, round(image_size * KERNEL_FRACTION / 2))


def gaussian_blur(images: Tensor, sigmas: Numbers, radius: int | None = None) -> Tensor:
    """Blur each image by its own sigma (pixels, above 0): float32 (rows, 3, height, width).

    The pixels are those of torchvision's GaussianBlur with a kernel of 2 * radius + 1, by default 3 sigma to each
    side; edges are mirrored, also where a kernel is larger than the image. A blur along an axis is one product with
    a banded matrix, whose time does not depend on sigma.
    """
    reach = np.ceil(REACH * sigmas) if radius is None else np.full(len(sigmas), radius)
    rows, columns = (_blur_matrices(sigmas, reach, size, images) for size in images.shape[-2:])
    return rows[:, None] @ (images @ columns[:, None].mT)


def _blur_matrices(sigmas: Numbers, reach: Numbers, size: int, images: Tensor) -> Tensor:
    """float32 (rows, size, size): the weights of all pixels of a line in each pixel of the blurred line.

    A line and its mirror image, end to end, repeat with one period; so do the weights. Pixel j then counts by
    the weight at j - i and, mirrored, by that at j + i: the pixels at the ends have no mirror image.
    """
    period = max(1, 2 * (size - 1))
    weights = _periodic_weights(sigmas, reach, period, images)
    around = torch.arange(-(size - 1), size, device=images.device) % period
    matrices = weights[:, around].unfold(1, size, 1).flip(1)
    if size > 2:
        mirrored = weights[:, (around + size - 1) % period].unfold(1, size, 1)
        matrices[:, :, 1:-1] += mirrored[:, :, 1:-1]
    return matrices


def _periodic_weights(sigmas: Numbers, reach: Numbers, period: int, images: Tensor) -> Tensor:
    """Gaussian weights at the distances 0 to period - 1, of all turns together: float32 (rows, period), of sum 1."""
    turns = int(reach.max()) // period + 1
    starts = torch.arange(-turns, turns + 1, device=images.device) * period
    distance = (starts[:, None] + torch.arange(period, device=images.device)).abs()
    sigma, limit = (column(values, images).view(-1, 1, 1) for values in (sigmas, reach))
    weights = torch.exp(-0.5 * (distance / sigma) ** 2).masked_fill_(distance > limit, 0.0).sum(1)
    return weights / weights.sum(1, keepdim=True)
