"""Augmentation policies: which operations are drawn for an image, with torchvision's distributions."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torchvision.transforms import InterpolationMode

from accel_trainer.data.augment.geometry import to_uint8
from accel_trainer.data.augment.operation_tables import OperationTables, operates_as_torch
from accel_trainer.data.augment.operations import GEOMETRIC, Operation, by_sources, operations_up_to
from accel_trainer.data.native.library import kernel
from accel_trainer.data.native.pixels import Steps, operate
from accel_trainer.data.rng.draws import Draws, Integers, Numbers, Parameters, which

Drawn = TypeVar("Drawn", bound=Parameters)
AUGMIX_BINS = 10
AUGMIX_MAX_DEPTH = 3
# What AugMix leaves out unless it is given all operations: they overlap with the corruptions of ImageNet-C.
COLOR_OPERATIONS = ("Brightness", "Color", "Contrast", "Sharpness")


class Policy(Protocol[Drawn]):
    """How images are altered at random."""

    def draw(self, draws: Draws) -> Drawn:
        """What is done to each image: arrays with one entry for each row of the draws."""
        ...

    def apply(self, image: Tensor, drawn: Drawn) -> Tensor:
        """uint8 (3, height, width) of any size to uint8 of the same shape; `drawn` is of one row: drawn[i : i + 1].

        The image is left as it is. The result may be the image itself, where nothing happens to it.
        """
        ...

    def prepare(self, drawn: Drawn, size: tuple[int, int]) -> Drawn:
        """What was drawn, with what the compiled kernel is told of it for images of this height and width, if it is
        used."""
        ...

    def apply_together(self, images: Tensor, drawn: Drawn) -> npt.NDArray[np.bool_] | None:
        """What `apply` does to each of some images, in place, by the compiled kernel; to which of them, bool (n,). None
        where what was drawn is not prepared."""
        ...


def apply_to_all(policy: Policy[Drawn], images: Tensor, drawn: Drawn) -> None:
    """Alter images, uint8 (n, 3, height, width), in place, each as it was drawn."""
    is_done = policy.apply_together(images, drawn)
    rows = range(len(images)) if is_done is None else np.flatnonzero(~is_done).tolist()
    for row in rows:
        image = images[row]
        changed = policy.apply(image, drawn[row : row + 1])
        if changed is not image:
            image.copy_(changed)


# -- what is drawn ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Operations(Parameters):
    """Which operations are applied to each image in succession: arrays of shape (rows, count)."""

    operation: Integers  # number of the operation among those of the policy
    magnitude_bin: Integers  # 0 is the first; operations without a magnitude ignore it
    sign: Integers  # 1 or -1; operations without a sign ignore it


@dataclass(frozen=True)
class PreparedOperations(Operations):
    """The same with what the compiled kernel is told."""

    steps: Steps
    is_known: npt.NDArray[np.bool_]  # (rows,): whether it knows all operations of a row


@dataclass(frozen=True)
class Mixture(Operations):
    """Which chains of operations are mixed for each image: the arrays of Operations are (rows, chains, depth)."""

    depth: Integers  # (rows, chains): how many of a chain's operations count
    weights: Numbers  # (rows, 1 + chains): of the image itself and of each chain; they add up to 1


class _Operating:
    """Has operations, draws some of them and applies them one after the other."""

    def __init__(self, operations: dict[str, Operation], num_bins: int) -> None:
        self.operations = operations
        self.num_bins = num_bins
        self._by_number = tuple(operations.values())
        self._tables = OperationTables(self._by_number, num_bins)

    def _draw(self, draws: Draws, purpose: str, *shape: int, num_bins: int) -> Operations:
        """Arrays of shape (rows, *shape): all operations, the first `num_bins` bins and both signs equally likely."""
        numbers = draws.uniforms(purpose, 3 * math.prod(shape)).reshape(len(draws), 3, *shape)
        return Operations(
            operation=which(numbers[:, 0], len(self.operations)),
            magnitude_bin=which(numbers[:, 1], num_bins),
            sign=2 * which(numbers[:, 2], 2) - 1,
        )

    def _in_succession(self, image: Tensor, operation: Integers, magnitude_bin: Integers, sign: Integers) -> Tensor:
        """The image after these operations; the arrays are of shape (count,)."""
        drawn = zip(operation.tolist(), magnitude_bin.tolist(), sign.tolist(), strict=True)
        for number, which_bin, direction in drawn:
            chosen = self._by_number[number]
            magnitude = chosen.magnitude(which_bin, self.num_bins, image.shape)
            image = chosen.change(image, direction * magnitude if chosen.signed else magnitude)
        return image


class _OperatingTogether(_Operating):
    """Operations of which the kernel knows most."""

    def prepare(self, drawn: Operations, size: tuple[int, int]) -> Operations:
        """With the steps of all rows."""
        compiled = kernel()
        if compiled is None or not operates_as_torch(compiled):
            return drawn
        steps, is_known = self._tables.steps(drawn.operation, drawn.magnitude_bin, drawn.sign, size)
        return PreparedOperations(**vars(drawn), steps=steps, is_known=is_known)

    def apply_together(self, images: Tensor, drawn: Operations) -> npt.NDArray[np.bool_] | None:
        """Alter those images of whose operations the kernel knows all."""
        compiled = kernel()
        if compiled is None or not isinstance(drawn, PreparedOperations):
            return None
        operate(compiled, images, drawn.steps)
        return drawn.is_known


# -- policies ---------------------------------------------------------------------------------------------------
class RandAugment(_OperatingTogether):
    """`num_ops` operations of one magnitude (Cubuk et al. 2020, "RandAugment"), as torchvision's v2.RandAugment.

    magnitude: number of the bin, from 0 to num_magnitude_bins - 1. What comes from outside of the image is black.
    """

    def __init__(self, num_ops: int = 2, magnitude: int = 9, num_magnitude_bins: int = 31) -> None:
        if num_ops < 1:
            raise ValueError(f"num_ops is {num_ops}; RandAugment takes 1 operation or more")
        _check_bins(num_magnitude_bins)
        if not 0 <= magnitude < num_magnitude_bins:
            raise ValueError(
                f"magnitude is {magnitude}; of {num_magnitude_bins} bins the last is no. {num_magnitude_bins - 1}"
            )
        largest = {"shear": 0.3, "translation": 150 / 331, "rotation": 30.0, "color_change": 0.9}
        operations = operations_up_to(InterpolationMode.NEAREST, **largest, relative=True, bits=(8, 4))
        for name in GEOMETRIC:  # of one magnitude, in two directions
            operations[name] = replace(operations[name], change=partial(by_sources, operations[name].change))
        super().__init__(operations, num_magnitude_bins)
        self.num_ops = num_ops
        self.magnitude = magnitude

    def draw(self, draws: Draws) -> Operations:
        """`num_ops` operations for each row, all of the one magnitude."""
        drawn = self._draw(draws, "RandAugment", self.num_ops, num_bins=self.num_bins)
        return replace(drawn, magnitude_bin=np.full_like(drawn.magnitude_bin, self.magnitude))

    def apply(self, image: Tensor, drawn: Operations) -> Tensor:
        """The operations of this row, one after the other."""
        return self._in_succession(image, drawn.operation[0], drawn.magnitude_bin[0], drawn.sign[0])


class TrivialAugment(_OperatingTogether):
    """One operation of any magnitude (Müller and Hutter 2021, "TrivialAugment"), as v2.TrivialAugmentWide.

    Translations go up to 32 pixels, whatever the size of the image. What comes from outside of the image is black.
    """

    def __init__(self, num_magnitude_bins: int = 31) -> None:
        _check_bins(num_magnitude_bins)
        largest = {"shear": 0.99, "translation": 32.0, "rotation": 135.0, "color_change": 0.99}
        super().__init__(
            operations_up_to(InterpolationMode.NEAREST, **largest, relative=False, bits=(8, 2)), num_magnitude_bins
        )

    def draw(self, draws: Draws) -> Operations:
        """One operation of any magnitude for each row."""
        return self._draw(draws, "TrivialAugment", 1, num_bins=self.num_bins)

    def apply(self, image: Tensor, drawn: Operations) -> Tensor:
        """The operation of this row."""
        return self._in_succession(image, drawn.operation[0], drawn.magnitude_bin[0], drawn.sign[0])


class AugMix(_Operating):
    """The image mixed with chains of operations on it (Hendrycks et al. 2020, "AugMix"), as torchvision's v2.AugMix.

    The weight of the image itself is uniform in [0, 1); the chains divide the rest by Dirichlet(1, ..., 1).
    severity: how many of the 10 magnitudes may come, from the first; chain_depth: operations in a chain, or 1 to 3 at
    random if it is not positive; all_ops: also brightness, color, contrast and sharpness. What comes from outside of
    the image is black.
    """

    def __init__(self, severity: int = 3, mixture_width: int = 3, chain_depth: int = -1, all_ops: bool = True) -> None:
        if not 1 <= severity <= AUGMIX_BINS:
            raise ValueError(f"severity is {severity}; AugMix takes 1 to {AUGMIX_BINS}")
        if mixture_width < 1:
            raise ValueError(f"mixture_width is {mixture_width}; AugMix takes 1 chain or more")
        largest = {"shear": 0.3, "translation": 1 / 3, "rotation": 30.0, "color_change": 0.9}
        operations = operations_up_to(InterpolationMode.BILINEAR, **largest, relative=True, bits=(4, 0))
        for name in ("Identity", *(() if all_ops else COLOR_OPERATIONS)):
            del operations[name]
        super().__init__(operations, AUGMIX_BINS)
        self.severity = severity
        self.mixture_width = mixture_width
        self.chain_depth = chain_depth

    def draw(self, draws: Draws) -> Mixture:
        """Chains of operations, and the weights of their results, for each row."""
        depth = self._draw_depth(draws)
        longest = self.chain_depth if self.chain_depth > 0 else AUGMIX_MAX_DEPTH
        chains = self._draw(draws, "AugMix: chains", self.mixture_width, longest, num_bins=self.severity)
        return Mixture(chains.operation, chains.magnitude_bin, chains.sign, depth, self._draw_weights(draws))

    def _draw_depth(self, draws: Draws) -> Integers:
        if self.chain_depth > 0:
            return np.full((len(draws), self.mixture_width), self.chain_depth)
        return 1 + which(draws.uniforms("AugMix: depth", self.mixture_width), AUGMIX_MAX_DEPTH)

    def _draw_weights(self, draws: Draws) -> Numbers:
        numbers = draws.uniforms("AugMix: weights", 1 + self.mixture_width)
        own = numbers[:, :1]
        # Exponential numbers over their sum are Dirichlet(1, ..., 1); of 1 - u, unlike u, there always is a logarithm.
        exponential = -np.log1p(-numbers[:, 1:])
        return np.hstack([own, (1 - own) * exponential / exponential.sum(axis=1, keepdims=True)])

    def prepare(self, drawn: Mixture, size: tuple[int, int]) -> Mixture:
        """As it is: images are moved by parts of pixels, and mixed as floats, which is left to torch."""
        return drawn

    def apply_together(self, images: Tensor, drawn: Mixture) -> None:
        """Nothing."""
        return

    def apply(self, image: Tensor, drawn: Mixture) -> Tensor:
        """The weighted sum of the image and of what each chain makes of it."""
        # What decoding gives is not contiguous; one copy makes the first operation of every chain faster.
        image = image.contiguous()
        own, *weights = drawn.weights[0].tolist()
        mixed = image * own
        for chain, (weight, depth) in enumerate(zip(weights, drawn.depth[0].tolist(), strict=True)):
            used = (0, chain, slice(depth))
            altered = self._in_succession(image, drawn.operation[used], drawn.magnitude_bin[used], drawn.sign[used])
            mixed += altered * weight
        return to_uint8(mixed)


def _check_bins(num_magnitude_bins: int) -> None:
    if num_magnitude_bins < 2:
        raise ValueError(f"num_magnitude_bins is {num_magnitude_bins}; a first and a last bin are needed")


POLICIES: dict[str, Callable[..., Policy[Any]]] = {
    "randaugment": RandAugment,
    "trivialaugment": TrivialAugment,
    "augmix": AugMix,
}
