"""Operations of policies as the compiled kernel takes them: tables that torchvision's own functions have filled."""

import threading
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import InterpolationMode

from accel_trainer.data.augment.operations import MAX_NUMBERED, Operation, numbers_moved, operations_up_to
from accel_trainer.data.native import pixels
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.native.pixels import Steps, Table
from accel_trainer.data.rng.draws import Integers

# In place of a kind of step: what is not known yet, and what the kernel cannot do.
_NOT_YET, _NEVER = -2, -1
# Of one policy, for all that moves pixels of one size: all of TrivialAugment's of 224 pixels are 62 MB.
_MAX_BYTES = 64 * 2**20
# What torch computes at once by any of its vectors.
_AT_ONCE = 32
Size = tuple[int, int]


class OperationTables:
    """The steps of a policy's operations, made when they are first drawn. May be asked by many threads at once."""

    def __init__(self, operations: Sequence[Operation], num_bins: int) -> None:
        self._operations, self._num_bins = operations, num_bins
        # By height and width, and then by operation, bin and sign. An array is never changed, but replaced.
        self._steps: dict[Size, Steps] = {}
        self._kept: dict[Size, list[Table]] = {}
        self._making = threading.Lock()

    def steps(
        self, operation: Integers, magnitude_bin: Integers, sign: Integers, size: Size
    ) -> tuple[Steps, npt.NDArray[np.bool_]]:
        """What is done to images of this size, and whether that is all that was drawn, bool (rows,): nothing is done to
        the others. operation, magnitude_bin, sign: int64 (rows, count)."""
        chosen = operation, magnitude_bin, (sign + 1) // 2
        steps = self._of(size)[chosen]
        if (steps[..., 0] == _NOT_YET).any():
            missing = np.stack(chosen, axis=-1)[steps[..., 0] == _NOT_YET]
            self._make({(number, which_bin, which) for number, which_bin, which in missing.tolist()}, size)
            steps = self._of(size)[chosen]
        is_known: npt.NDArray[np.bool_] = np.logical_and.reduce(steps[..., 0] >= 0, axis=1)
        steps[~is_known] = 0
        return steps, is_known

    def _of(self, size: Size) -> Steps:
        try:
            return self._steps[size]
        except KeyError:
            return np.full((len(self._operations), self._num_bins, 2, 2), _NOT_YET, np.int64)

    def _make(self, wanted: set[tuple[int, int, int]], size: Size) -> None:
        with self._making:
            steps, kept = self._of(size).copy(), self._kept.setdefault(size, [])
            for number, which_bin, which in wanted:
                if steps[number, which_bin, which, 0] != _NOT_YET:
                    continue  # another thread made it
                operation = self._operations[number]
                magnitude = operation.magnitude(which_bin, self._num_bins, size)
                table = table_of(operation, (2 * which - 1) * magnitude if operation.signed else magnitude, size)
                if table is None or self._bytes(kept) + table.size > _MAX_BYTES:
                    steps[number, which_bin, which, 0] = _NEVER
                else:
                    kept.append(table)
                    steps[number, which_bin, which] = table.step
            self._steps[size] = steps

    @staticmethod
    def _bytes(tables: Sequence[Table]) -> int:
        return sum(table.size for table in tables)


def table_of(operation: Operation, magnitude: float, size: Size) -> Table | None:
    """An operation of this magnitude as the kernel does it to images of this size; None where it does not."""
    match operation.kind:
        case pixels.SAME | pixels.AUTO_CONTRAST | pixels.EQUALIZE:
            return Table(operation.kind)
        case pixels.BY_LEVEL:
            levels = torch.arange(pixels.LEVELS, dtype=torch.uint8).expand(3, 1, -1).contiguous()
            return pixels.by_level(operation.change(levels, magnitude)[0, 0].numpy().copy())
        case pixels.MOVED if operation.moves is not None and size[0] * size[1] < MAX_NUMBERED:
            return pixels.moved(numbers_moved(operation.moves, magnitude, *size))
        case pixels.CONTRAST if 255 * size[0] * size[1] >= MAX_NUMBERED or 3 * size[0] * size[1] % _AT_ONCE:
            # The sum of so many pixels is rounded, by torch in an order of its own. And what its vectors leave over of
            # an image it mixes with the mean by a product that is rounded, too.
            return None
        case pixels.SATURATION | pixels.CONTRAST | pixels.SHARPNESS:
            return pixels.mixed(operation.kind, 1.0 + magnitude, 1.0 - (1.0 + magnitude))
        case _:
            return None


@cache
def operates_as_torch(compiled: Kernel) -> bool:
    """Whether the kernel gives the bits of torch here, by an image that each operation is done to."""
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 24), dtype=np.uint8))
    largest = {"shear": 0.3, "translation": 0.3, "rotation": 30.0, "color_change": 0.9}
    operations = operations_up_to(InterpolationMode.NEAREST, **largest, relative=True, bits=(8, 4))
    for operation in operations.values():
        for magnitude in (operation.magnitude(7, 31, image.shape), -operation.magnitude(20, 31, image.shape)):
            if magnitude < 0 and not operation.signed:
                continue
            table = table_of(operation, magnitude, (20, 24))
            if table is None:
                return False
            ours = image.clone()[None]
            pixels.operate(compiled, ours, np.array([[table.step]], np.int64))
            if not torch.equal(ours[0], operation.change(image, magnitude)):
                return False
    return True
