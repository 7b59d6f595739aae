"""Gaussian blur."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from accel_trainer.config.augmentations import shares
from accel_trainer.data.draws import Draws, Numbers, Parameters, choose
from accel_trainer.data.effects import Drawn, change_rows, column

# A kernel reaches this many standard deviations.
REACH = 3
# SimCLR's (Chen et al. 2020): any sigma of this range, by a kernel of a tenth of the image.
CONTRASTIVE_SIGMAS = (0.1, 2.0)
KERNEL_SHARE = 0.1


@dataclass(frozen=True)
class BlurParameters(Parameters):
    """sigma: standard deviation in pixels, 0 for none."""

    sigma: Numbers


class Blur(Drawn):
    """Blur by one of several sigmas: each as often as its share says, and none for the rest."""

    def __init__(self, sigmas: Sequence[float], probs: Sequence[float]) -> None:
        self.sigmas = np.array([*sigmas, 0.0])  # the last for -1: none drawn
        self.shares = shares(len(sigmas), list(probs))

    def draw(self, draws: Draws) -> BlurParameters:
        return BlurParameters(self.sigmas[choose(draws.uniforms("blur", 1)[:, 0], self.shares)])

    def apply(self, images: Tensor, fetched: BlurParameters) -> Tensor:
        rows = np.flatnonzero(fetched.sigma > 0)
        return change_rows(images, rows, gaussian_blur, fetched.sigma)


class FrameBlur(Blur):
    """Blur of a clip: frame t has sigmas[t], as often as its probability says."""

    def __init__(self, sigmas: Sequence[float], probs: Sequence[float]) -> None:
        self.sigmas = np.array(sigmas)
        self.probs = np.broadcast_to(np.array(probs), self.sigmas.shape)

    def draw(self, draws: Draws) -> BlurParameters:
        frames = draws.views
        is_blurred = draws.uniforms("blur", 1)[:, 0] < self.probs[frames]
        return BlurParameters(np.where(is_blurred, self.sigmas[frames], 0.0))


class ContrastiveBlur(Drawn):
    """The blur of contrastive learning: every image by a sigma of its own."""

    def draw(self, draws: Draws) -> BlurParameters:
        low, high = CONTRASTIVE_SIGMAS
        return BlurParameters(low + (high - low) * draws.uniforms("contrastive blur", 1)[:, 0])

    def apply(self, images: Tensor, fetched: BlurParameters) -> Tensor:
        return gaussian_blur(images, fetched.sigma, contrastive_radius(images.shape[-1]))


def contrastive_radius(image_size: int) -> int:
    """11 at 224 pixels: a kernel of 23, as SimCLR's."""
    return max(1, round(image_size * KERNEL_SHARE / 2))


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
    """float32 (rows, size, size): the weights of all pixels of a line in each pixel of the blurred line."""
    furthest = int(reach.max())
    offsets = torch.arange(-furthest, furthest + 1, device=images.device)
    sigma, limit = (column(values, images).view(-1, 1) for values in (sigmas, reach))
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2).masked_fill_(offsets.abs() > limit, 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    sources = _mirrored(torch.arange(size, device=images.device)[:, None] + offsets, size)
    matrices = images.new_zeros(len(sigmas), size, size)
    return matrices.scatter_add_(2, sources.expand(len(sigmas), -1, -1), weights[:, None].expand(-1, size, -1))


def _mirrored(positions: Tensor, size: int) -> Tensor:
    """Positions outside of a line, mirrored into it as often as it takes; the edge pixel is not repeated."""
    if size == 1:
        return torch.zeros_like(positions)
    period = 2 * (size - 1)
    wrapped = positions.remainder(period)
    return torch.minimum(wrapped, period - wrapped)
