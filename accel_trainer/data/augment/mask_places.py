"""Where in files the masks of occluders are, as arrays: they are looked for once, not for each image."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from accel_trainer.core.random_access import RandomAccessFile
from accel_trainer.data.occluders.masks import Masks
from accel_trainer.data.rng.draws import Integers

# Columns of what `MaskPlaces` finds.
FILE, OFFSET, CHANNELS, HEIGHT, WIDTH = range(5)


class MaskPlaces:
    """The places of the masks of some levels. May be asked by many threads at once."""

    def __init__(self, all_masks: Sequence[Masks]) -> None:
        self._all = all_masks
        self._starts = np.array([0, *accumulate(map(len, all_masks))])
        self._offsets = np.zeros(int(self._starts[-1]), np.int64)
        # Of each level: the descriptor of its file, and the shape of its masks.
        self._about = np.zeros((len(all_masks), 4), np.int64)
        self._files: list[RandomAccessFile | None] = [None] * len(all_masks)
        self._is_known = [False] * len(all_masks)

    def of(self, masks: Integers, items: Integers) -> npt.NDArray[np.int64] | None:
        """Descriptor of the file, offset, channels, height and width of each: int64 (n, 5). None where some are not
        stored as they are read, or where `Masks.read` says what is wrong with a file.

        masks, items: which masks, and which one of those, int64 (n,).
        """
        for number in set(masks.tolist()):
            if not self._is_known[number]:
                self._look_up(number)
            file = self._files[number]
            if file is None or file.has_failed:
                return None
        found = np.empty((len(masks), 5), np.int64)
        found[:, OFFSET] = self._offsets[self._starts[masks] + items]
        about = self._about[masks]
        found[:, FILE], found[:, CHANNELS:] = about[:, 0], about[:, 1:]
        return found

    def _look_up(self, number: int) -> None:
        masks = self._all[number]
        places = [masks.place(index) for index in range(len(masks))]
        known = [place for place in places if place is not None]
        if len(known) == len(places) and len({(id(place.file), place.shape) for place in known}) == 1:
            first, start = known[0], self._starts[number]
            self._offsets[start : start + len(known)] = [place.offset for place in known]
            self._about[number] = (first.file.descriptor, *first.shape)
            self._files[number] = first.file
        self._is_known[number] = True  # the last: another thread may ask
