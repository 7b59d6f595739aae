"""Work that threads share, one core each, with memory that is used again."""

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Made = TypeVar("Made", covariant=True)


class ParallelTask(Protocol[Made]):
    """Something that is made of parts."""

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        """What is to be done, in at least so many parts where that makes sense; in any order, and at the same time."""
        ...

    def result(self) -> Made:
        """What was made; once all parts are done."""
        ...


def run_here(work: ParallelTask[T]) -> T:
    """Do all of it in this thread."""
    for part in work.parts(1):
        part()
    return work.result()


class SingleTask(Generic[T]):
    """A call as work of one part."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._made: list[T] = []

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        return [lambda: self._made.append(self._call())]

    def result(self) -> T:
        return self._made.pop()


def run_shared(pool: ThreadPoolExecutor, begin: Callable[[], ParallelTask[T]], num_threads: int) -> Future[T]:
    """Let the threads of a pool do it, one of which begins it. The first error ends it; what waits is given up when the
    future is cancelled or the pool is shut down."""
    return _Shared(pool, begin, num_threads).future


class _Shared(Generic[T]):
    def __init__(self, pool: ThreadPoolExecutor, begin: Callable[[], ParallelTask[T]], num_threads: int) -> None:
        self.future: Future[T] = Future()
        self._pool, self._num_threads = pool, num_threads
        self._lock = threading.Lock()
        self._left = 1  # the beginning
        self._error: BaseException | None = None
        self._work: ParallelTask[T] | None = None
        pool.submit(self._do, lambda: self._begin(begin))

    def _begin(self, begin: Callable[[], ParallelTask[T]]) -> None:
        if not self.future.set_running_or_notify_cancel():
            self._left = 0  # nobody waits
            return
        self._work = begin()
        parts = self._work.parts(self._num_threads)
        self._left += len(parts)
        for part in parts:
            self._pool.submit(self._do, part)

    def _do(self, part: Callable[[], None]) -> None:
        try:
            if self._error is None:
                part()
        except BaseException as error:
            self._error = self._error or error
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._end()

    def _end(self) -> None:
        try:
            if self._error is not None:
                raise self._error
            assert self._work is not None
            made = self._work.result()
            self._work = None  # what it needs no more is free before anybody goes on
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(made)


S = TypeVar("S")


def single_core_threads(number: int, name: str) -> ThreadPoolExecutor:
    """Threads whose tensors use one core each: threads of threads would get into each other's way, and the last bits of
    a matrix product depend on their number.

    The calling thread keeps its own number. It has none before it asks torch for the first time, and would be given
    what any thread set last: another number, and other last bits, than without the pool.
    """
    torch.get_num_threads()
    return ThreadPoolExecutor(number, name, initializer=torch.set_num_threads, initargs=(1,))


def in_order(submit: Callable[[S], Future[T]], items: Iterable[S], at_once: int) -> Iterator[T]:
    """What threads make of items, in their order, with `at_once` of them being made or waiting to be taken.

    An error in a thread is raised here, in its turn; what was not begun by then is never begun.
    """
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) >= at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def on_one_core(call: Callable[[], T]) -> T:
    """Call in this thread as a thread of such a pool does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


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
        self._is_released = False

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
        weakref.finalize(lent, self._take_back, memory).atexit = False
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

    def _take_back(self, memory: Tensor) -> None:
        # No lock: this may be called at any moment, also in a thread that holds it.
        if not self._is_released:
            self._spare.append(memory)

    def release(self) -> None:
        """Let go of spare memory, and of memory that is still in use as soon as it is not."""
        self._is_released = True
        self._spare.clear()
