"""The files of masks that a job's occluders come from, listed as the images of a data set are."""

from collections.abc import Callable, Sequence

import numpy as np

from accel_trainer.data.listing import Numbers
from accel_trainer.data.occluders.bank import Form


class OccluderFiles:
    """A class for each level of each form, such as mudSplash/40, and in it the files of its masks."""

    def __init__(self, forms: Sequence[Form]) -> None:
        self._levels = {f"{form.name}/{level}": masks for form in forms for level, masks in form.levels.items()}
        self.classes = list(self._levels)
        counts = [len(masks.files) for masks in self._levels.values()]
        self.labels: Numbers = np.repeat(np.arange(len(counts)), counts)

    @property
    def known_marks(self) -> list[int]:
        """None: what a machine knows of a file is not what another one does."""
        return []

    def names(self, indices: Numbers) -> list[str]:
        """Names of files, each within its level."""
        every = [name for masks in self._levels.values() for name in masks.files]
        return [every[index] for index in indices.tolist()]

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """A checksum of the content of each file. Raises Canceled, and UserError for one that cannot be read."""
        every = np.concatenate([masks.marks(is_canceled) for masks in self._levels.values()])
        chosen: Numbers = every[indices]
        return chosen
