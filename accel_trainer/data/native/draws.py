"""The kernel's random numbers, all of a batch in one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accel_trainer.data.native.calls import address_of
from accel_trainer.data.native.library import Kernel


def random_numbers(
    kernel: Kernel, keys: Sequence[int], subjects: npt.NDArray[np.int64], count: int, *, are_uniform: bool
) -> npt.NDArray[Any]:
    """`count` numbers for each view of each subject, the views of one in succession: of (subjects * views, count),
    uint64 of random bits, or float64 in [0, 1), as keyed_random has them.

    keys: of 64 bits, one for each view.
    """
    subjects = np.ascontiguousarray(subjects, np.int64)
    each = np.array(keys, np.uint64)
    out = np.empty((len(subjects) * len(keys), count), np.float64 if are_uniform else np.uint64)
    kernel.random(address_of(each), len(keys), address_of(subjects), len(subjects), count, are_uniform, address_of(out))
    return out
