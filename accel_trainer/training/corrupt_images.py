"""Corrupt images that several processes meet: the same rule, at the same step, on any number of them."""

from collections.abc import Set as AbstractSet

import torch
from accelerate import Accelerator

from accel_trainer.data.loader import ImageReader


class CorruptShare:
    """Ends an epoch in which too many training images are corrupt, one step after that is so.

    Each process knows those that it has met, and what all had met when they last told each other. The numbers are
    exchanged with the wishes of a step; only where their sum is too high do the processes look which images they are.
    """

    def __init__(self, accelerator: Accelerator, reader: ImageReader) -> None:
        self._accelerator, self._reader = accelerator, reader
        self._num_shared = self._noted_shared = 0
        self._noted: frozenset[int] = frozenset()
        self._before, self._before_shared = self._noted, 0

    def note(self) -> int:
        """Keep what was met up to this step; how many of them the other processes do not know of."""
        self._before, self._before_shared = self._noted, self._noted_shared
        met = self._reader.met
        if len(met) != len(self._noted):  # it only grows
            self._noted = frozenset(met)
        self._noted_shared = self._num_shared
        return len(self._noted) - self._noted_shared

    def check(self, num_new: int) -> None:
        """Look at what was met up to the step before. num_new: the sum of what each process has noted then. Raises
        UserError, on all of them alike."""
        if not self._reader.may_be_corrupt(self._before_shared + num_new):
            met = corrupt_of_all(self._accelerator, self._before, len(self._reader.source.labels))
            self._reader.check_share(met)

    def share(self) -> None:
        """Every process learns which corrupt images the others have met. All call it."""
        reader = self._reader
        reader.met |= corrupt_of_all(self._accelerator, reader.met, len(reader.source.labels))
        self.all_know()

    def all_know(self) -> None:
        """What this process has met, the others have met too: it was restored from a state of all."""
        self._num_shared = len(self._reader.met)


def corrupt_of_all(accelerator: Accelerator, met: AbstractSet[int], num_images: int) -> set[int]:
    """The images of a set that any process has met. All call it."""
    count = torch.tensor([len(met)], device=accelerator.device)
    if accelerator.num_processes == 1 or not accelerator.reduce(count, reduction="sum").item():
        return set(met)
    is_corrupt = torch.zeros(num_images, dtype=torch.int32, device=accelerator.device)
    is_corrupt[sorted(met)] = 1
    return set(accelerator.reduce(is_corrupt, reduction="sum").nonzero().flatten().tolist())
