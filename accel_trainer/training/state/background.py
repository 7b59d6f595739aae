"""Saving on a thread, from a copy, while the training goes on."""

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor

from accel_trainer.core.limits import available_memory
from accel_trainer.core.spans import Phase, span
from accel_trainer.core.text import first_line
from accel_trainer.data.shared_work import single_core_threads

log = logging.getLogger(__name__)
C = TypeVar("C")
# Of the memory that is available, how much a copy may take.
MEMORY_FRACTION = 0.5


class HostMemory:
    """Copies of tensors on the host, in memory that is used again for the next copies.

    Of what is on a CUDA device the copies are pinned, and made in the order of the device's work, which the host does
    not wait for; `wait` does. That was not run on a GPU. Copies from other devices are made when `copy` returns.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []
        self._copied: torch.cuda.Event | None = None

    def bytes_for(self, content: Any) -> int:
        """How much more memory a copy takes than there is already."""
        return max(0, _num_bytes(_by_place(content).values()) - _num_bytes(self._kept))

    @torch.no_grad()
    def copy(self, content: C) -> C:
        """The same plain data, with a copy of each tensor in it, which is good until the next call. Tensors that are
        one memory stay one."""
        spare, self._kept = defaultdict[Hashable, list[Tensor]](list), self._kept
        for tensor in self._kept:
            spare[_kind(tensor)].append(tensor)
        copies: dict[Hashable, Tensor] = {}
        for place, tensor in _by_place(content).items():
            fitting = spare[_kind(tensor)]
            copy = fitting.pop() if fitting else torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            copies[place] = copy.copy_(tensor, non_blocking=tensor.is_cuda)
        self._kept, self._copied = list(copies.values()), _event_of(content)
        return deepcopy(content, {id(tensor): copies[_place(tensor)] for tensor in _tensors(content)})

    def wait(self) -> None:
        """Until the copies are made."""
        if self._copied is not None:
            self._copied.synchronize()

    def release(self) -> None:
        """Let go of the memory."""
        self._kept = []


def _event_of(content: Any) -> torch.cuda.Event | None:
    """What the device has done when all work that it was given so far is over; None where nothing is on one."""
    if not any(tensor.is_cuda for tensor in _tensors(content)):
        return None
    event = torch.cuda.Event()
    event.record()
    return event


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors in plain data, nested as it may be."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _tensors(value)


def _by_place(content: Any) -> dict[Hashable, Tensor]:
    """Of tensors that are the same memory one."""
    return {_place(tensor): tensor for tensor in _tensors(content)}


def _place(tensor: Tensor) -> Hashable:
    return tensor.device, tensor.data_ptr(), _kind(tensor)


def _kind(tensor: Tensor) -> Hashable:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg()


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


class SaveThread:
    """Has what is to be saved written by a thread, from a copy, while the training goes on; one save at a time.

    Who saves does so itself outside of `running`, where it has to wait for the end anyway, and where a copy would take
    more than MEMORY_FRACTION of the memory that is available.
    """

    def __init__(self) -> None:
        self._memory = HostMemory()
        self._pool: ThreadPoolExecutor | None = None
        self._saving: Future[None] | None = None
        self._says_why_not = True

    @contextmanager
    def running(self) -> Iterator[None]:
        """In this context there is the thread. At its end all is written, whatever has ended it, and the memory free.

        Raises what `wait` does; where the body has raised something, that is only logged.
        """
        with single_core_threads(1, "saving") as pool:
            self._pool = pool
            try:
                yield
                self.wait()
            finally:
                self._pool = None
                if self._saving is not None and (error := self._saving.exception()) is not None:
                    log.error("what was being saved meanwhile was not: %s", first_line(error))
                self._saving = None
                self._memory.release()

    def save(self, content: C, write: Callable[[C], None], *, waits: bool) -> None:
        """Have content written, which is plain data and tensors; the thread's copy is consistent, whatever becomes of
        the tensors. Waits for the save before. waits: for this one, too. Raises as `wait`, and what `write` does."""
        self.wait()
        if waits or self._pool is None or not self._has_room(content) or (copy := self._copy(content)) is None:
            write(content)
        else:
            self._saving = self._pool.submit(self._write, copy, write)

    def _copy(self, content: C) -> C | None:
        """None where the system gives no memory for it: of pinned memory there may be less than of other."""
        try:
            return self._memory.copy(content)
        except (RuntimeError, MemoryError) as error:
            self._memory.release()
            self._say_why_not(first_line(error))
            return None

    def _write(self, copy: C, write: Callable[[C], None]) -> None:
        with span(Phase.SAVING):
            self._memory.wait()
            write(copy)

    def _has_room(self, content: Any) -> bool:
        needed = self._memory.bytes_for(content)
        if not needed or needed <= MEMORY_FRACTION * (available := available_memory()):
            return True
        self._say_why_not(f"{needed / 1e9:.1f} GB, there is too little memory ({available / 1e9:.1f} GB)")
        return False

    def _say_why_not(self, reason: str) -> None:
        if self._says_why_not:
            self._says_why_not = False
            log.info("the training waits while it is saved: for a copy, %s", reason)

    def check(self) -> None:
        """Raises what the save that has been written last has raised, as `wait`; waits for none."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Until all is written. Raises what writing it has raised."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()
