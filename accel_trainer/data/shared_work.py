"""Tasks that threads divide among themselves, one core each, and memory that is reused."""

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

T = TypeVar("T")
Result = TypeVar("Result", covariant=True)


class ParallelTask(Protocol[Result]):
    """Work that is divided into parts, and has a result when all of them are done."""

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        """The parts as calls, at least `number` of them where that makes sense; in any order, and at the same time."""
        ...

    def result(self) -> Result:
        """The result, once all parts are done."""
        ...


def run_here(task: ParallelTask[T]) -> T:
    """Run all parts of a task in this thread."""
    for part in task.parts(1):
        part()
    return task.result()


class SingleTask(Generic[T]):
    """A call as a task of one part."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._results: list[T] = []

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        """The call, as the only part."""
        return [lambda: self._results.append(self._call())]

    def result(self) -> T:
        """What the call returned."""
        return self._results.pop()


def run_shared(
    pool: ThreadPoolExecutor,
    begin: Callable[[], ParallelTask[T]],
    num_threads: int,
    is_closing: threading.Event | None = None,
) -> Future[T]:
    """Run a task in the threads of a pool, of which one begins it.

    The first error of a part becomes the future's. Parts that have not started are dropped when the future is
    canceled, or the pool is shut down after `is_closing` was set.
    """
    return _SharedRun(pool, begin, num_threads, is_closing or threading.Event()).future


class _SharedRun(Generic[T]):
    def __init__(
        self,
        pool: ThreadPoolExecutor,
        begin: Callable[[], ParallelTask[T]],
        num_threads: int,
        is_closing: threading.Event,
    ) -> None:
        self.future: Future[T] = Future()
        self._pool, self._num_threads, self._is_closing = pool, num_threads, is_closing
        self._parts: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._left = 1  # `begin` itself
        self._num_asked = 0
        self._error: BaseException | None = None
        self._task: ParallelTask[T] | None = None
        pool.submit(self._do, lambda: self._begin(begin))

    def _begin(self, begin: Callable[[], ParallelTask[T]]) -> None:
        if not self.future.set_running_or_notify_cancel():
            self._left = 0  # the future was canceled
            return
        self._task = begin()
        self._parts.extend(self._task.parts(self._num_threads))
        self._left += len(self._parts)
        self._ask_for_help()

    def _ask_for_help(self) -> None:
        """Have one thread more do parts, while some are left: each asks for the next when it comes, so that few are
        asked where all are busy. What a pool does for a call takes longer than a small part."""
        if not self._parts or self._num_asked >= self._num_threads:
            return
        self._num_asked += 1  # by one thread at a time: the last that came
        try:
            self._pool.submit(self._do_parts)
        except RuntimeError:  # it is shut down: whoever is there does the rest
            if self._num_asked == 1:
                raise

    def _do_parts(self) -> None:
        is_new = True
        while not self._is_closing.is_set():
            try:
                part = self._parts.popleft()
            except IndexError:
                return
            if is_new:
                self._ask_for_help()
                is_new = False
            self._do(part)

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
            result = self._result()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def _result(self) -> T:
        if self._task is None:
            raise RuntimeError("a task has no result before it begins")
        task, self._task = self._task, None  # its memory is free before the result is used
        return task.result()


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
    """The results of items, in the order of the items, with `at_once` of them being computed or waiting to be taken.

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


def ahead_of(items: Iterable[S], number: int, tell: Callable[[S], object]) -> Iterator[S]:
    """The items; each is told of when the one `number` places before it is asked for."""
    coming: deque[S] = deque()
    for item in items:
        tell(item)
        coming.append(item)
        if len(coming) > number:
            yield coming.popleft()
    yield from coming


def on_one_core(call: Callable[[], T]) -> T:
    """Call in this thread, with one core as in `single_core_threads`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


# Less than this comes from the allocator's own stores.
MIN_BYTES = 2**20


class Buffers:
    """Memory for batches, which comes back by itself when no tensor uses it anymore, neither a slice nor one that
    autograd has saved for a backward pass. So batches may be kept; there are as many buffers as were in use at once.
    """

    def __init__(self) -> None:
        self._spare: deque[npt.NDArray[np.uint8]] = deque()
        self._lent: dict[int, weakref.ref[npt.NDArray[np.uint8]]] = {}
        self._taking = threading.Lock()
        self._is_released = False

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """As torch.empty. In a process that uses CUDA the memory is pinned, from torch's own ring of pinned buffers,
        which knows when an asynchronous copy is over (not tried on a GPU)."""
        size = math.prod(shape) * dtype.itemsize
        if torch.cuda.is_initialized():
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        if size < MIN_BYTES:
            return torch.empty(shape, dtype=dtype)
        memory = self._take(size)
        # The storage of a tensor that is made of an array keeps this array, and nothing else does.
        lent = memory[:]
        # Not by finalizers, which take several times as long, with the interpreter's lock.
        number = id(memory)
        self._lent[number] = weakref.ref(lent, lambda _: self._take_back(number, memory))
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _take(self, size: int) -> npt.NDArray[np.uint8]:
        """Spare memory of that size; else new memory, in exchange for what has another size."""
        with self._taking:  # memory may come back meanwhile, but none goes
            for _ in range(len(self._spare)):
                memory = self._spare.pop()
                if len(memory) == size:
                    return memory
                self._spare.appendleft(memory)
            if self._spare:
                self._spare.popleft()
        return torch.empty(size, dtype=torch.uint8).numpy()  # aligned for vectors, as NumPy's own is not

    def _take_back(self, number: int, memory: npt.NDArray[np.uint8]) -> None:
        # No lock: this may be called at any moment, also in a thread that holds it.
        del self._lent[number]
        if not self._is_released:
            self._spare.append(memory)

    def release(self) -> None:
        """Let go of spare memory, and of memory that is still in use as soon as it is not."""
        self._is_released = True
        self._spare.clear()
