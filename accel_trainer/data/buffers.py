"""Memory for batches, used again and again: the system takes longer to give 40 MB of new memory than a thread takes to
fill it."""

import math
import threading
import weakref
from collections import deque

import torch
from torch import Tensor

# Less than this comes from the allocator's own stores.
MIN_BYTES = 2**20


class Buffers:
    """Gives out memory, and takes it back by itself when no tensor is left that uses it: not a slice, and not what
    autograd has kept for a backward pass. So whoever keeps a batch may; there are as many buffers as were in use at
    once, and no more.
    """

    def __init__(self) -> None:
        self._spare: deque[Tensor] = deque()
        self._taking = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """As torch.empty. In a process that uses CUDA the memory is pinned, from torch's own ring of pinned buffers,
        which knows when a copy that nobody waits for is over (not tried on a GPU)."""
        size = math.prod(shape) * dtype.itemsize
        if torch.cuda.is_initialized():
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        if size < MIN_BYTES:
            return torch.empty(shape, dtype=dtype)
        memory = self._take(size)
        # The storage of a tensor that is made of an array keeps this array, and nothing else does.
        lent = memory.numpy()[:]
        weakref.finalize(lent, self._spare.append, memory).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _take(self, size: int) -> Tensor:
        """Spare memory of that size; else new memory, in exchange for what has another size."""
        with self._taking:  # memory may come back meanwhile, but none goes
            for _ in range(len(self._spare)):
                memory = self._spare.pop()
                if len(memory) == size:
                    return memory
                self._spare.appendleft(memory)
            if self._spare:
                self._spare.popleft()
        return torch.empty(size, dtype=torch.uint8)


BATCHES = Buffers()
