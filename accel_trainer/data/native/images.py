"""Images in memory, as the kernel is told of them."""

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Bytes of images that a thread reads before it cuts them: they stay in the processor's caches.
TOGETHER = 2 * 2**20
Table = npt.NDArray[np.int64]


class Blocks:
    """Memory for images that are read together. It is used again when no array and no tensor uses it anymore: as much
    memory is otherwise given back to the system each time, while the interpreter's lock is held, and cleared anew."""

    def __init__(self) -> None:
        self._spare: deque[npt.NDArray[np.uint8]] = deque()

    def empty(self, size: int) -> npt.NDArray[np.uint8]:
        """As numpy.empty: uint8 (size,)."""
        if size > TOGETHER:
            return np.empty(size, np.uint8)
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = np.empty(TOGETHER, np.uint8)
        # By way of a memoryview: slices then keep what is lent, not the memory behind it.
        lent = np.frombuffer(memory.data, np.uint8, size)
        weakref.finalize(lent, self._spare.append, memory).atexit = False
        return lent


class Images:
    """uint8 images (3, height, width) of any sizes, anywhere in memory.

    table: for each its address, the bytes from one channel, row and column to the next, its height and its width:
    int64 (images, 6). The memory is kept as long as this object is.
    """

    def __init__(self, table: Table, memory: Any) -> None:
        self.table = table
        self._memory = memory

    @classmethod
    def of(cls, images: Sequence[Tensor]) -> "Images":
        """Those of tensors."""
        rows = [(image.data_ptr(), *image.stride(), *image.shape[1:]) for image in images]
        return cls(np.array(rows, np.int64).reshape(-1, 6), images)

    @classmethod
    def packed(cls, block: npt.NDArray[np.uint8], starts: Table, heights: Table, widths: Table) -> "Images":
        """Images (height, width, 3) in one array of bytes, from these places on."""
        table = np.empty((len(starts), 6), np.int64)
        table[:, 0] = block.__array_interface__["data"][0] + starts
        table[:, 1], table[:, 2], table[:, 3] = 1, 3 * widths, 3
        table[:, 4], table[:, 5] = heights, widths
        return cls(table, block)

    @property
    def sizes(self) -> list[list[int]]:
        """[height, width] of each."""
        sizes: list[list[int]] = self.table[:, 4:].tolist()
        return sizes

    def some(self, which: slice) -> "Images":
        """Some of them, in the same memory."""
        memory = self._memory if isinstance(self._memory, np.ndarray) else self._memory[which]
        return Images(self.table[which], memory)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, position: int) -> Tensor:
        """One of them."""
        if not isinstance(self._memory, np.ndarray):
            image: Tensor = self._memory[position]
            return image
        address, _, _, _, height, width = self.table[position].tolist()
        start = address - self._memory.__array_interface__["data"][0]
        pixels = self._memory[start : start + 3 * height * width].reshape(height, width, 3)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[position] for position in range(len(self)))
