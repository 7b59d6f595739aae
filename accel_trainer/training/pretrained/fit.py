"""Whether a tensor of one shape can be taken for another."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor
from torchvision.models.vision_transformer import interpolate_embeddings


@dataclass(frozen=True)
class Shapes:
    """The shapes of a tensor in the file and of the tensor of that name in the model."""

    file: tuple[int, ...]
    model: tuple[int, ...]


class Fit(Enum):
    """How a tensor can be taken for another."""

    SAME = auto()
    RESHAPED = auto()
    INTERPOLATED = auto()


def fit_of(name: str, shapes: Shapes) -> Fit | None:
    """How the tensor in the file can be taken for the one of this name in the model; None if it cannot."""
    if shapes.file == shapes.model:
        return Fit.SAME
    if _same_layout(shapes.file, shapes.model):
        return Fit.RESHAPED
    return Fit.INTERPOLATED if _are_positions(name, shapes) else None


_POSITIONS = "encoder.pos_embedding"


def interpolate_positions(embeddings: Tensor, tokens: int) -> Tensor:
    """Embeddings (1, 1 + rows * columns, features) for another number of tokens, as torchvision interpolates them."""
    grid = math.isqrt(tokens - 1)
    resized: Tensor = interpolate_embeddings(grid, 1, OrderedDict({_POSITIONS: embeddings.float()}))[_POSITIONS]
    return resized


def _are_positions(name: str, shapes: Shapes) -> bool:
    """Whether they are embeddings (1, 1 + rows * columns, features) of a square of patches behind a class token."""
    if name.rpartition(".")[2] != "pos_embedding" or not len(shapes.file) == len(shapes.model) == 3:
        return False
    (batch, tokens, width), (own_batch, own_tokens, own_width) = shapes.file, shapes.model
    are_squares = all(count > 1 and math.isqrt(count - 1) ** 2 == count - 1 for count in (tokens, own_tokens))
    return batch == own_batch == 1 and width == own_width and are_squares


def _same_layout(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes differ only in neighboring dimensions that one of them has merged: (10, 512, 1, 1) and
    (10, 512), but not (10, 20) and (20, 10)."""
    steps, others = (set(accumulate(shape, mul)) - {1} for shape in (one, other))
    same_size = torch.Size(one).numel() == torch.Size(other).numel()
    return same_size and (steps <= others or others <= steps)
