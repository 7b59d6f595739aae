"""Work that several threads share, so that a few batches under way keep all of them busy."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
Made = TypeVar("Made", covariant=True)


class Work(Protocol[Made]):
    """Something that is made of parts."""

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        """What is to be done, in at least so many parts where that makes sense; in any order, and at the same time."""
        ...

    def result(self) -> Made:
        """What was made; once all parts are done."""
        ...


def make(work: Work[T]) -> T:
    """Do all of it in this thread."""
    for part in work.parts(1):
        part()
    return work.result()


class Whole(Generic[T]):
    """A call as work of one part."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._made: list[T] = []

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        return [lambda: self._made.append(self._call())]

    def result(self) -> T:
        return self._made.pop()


def shared(pool: ThreadPoolExecutor, begin: Callable[[], Work[T]], num_threads: int) -> Future[T]:
    """Let the threads of a pool do it, one of which begins it. The first error ends it; what waits is given up when the
    future is cancelled or the pool is shut down."""
    return _Shared(pool, begin, num_threads).future


class _Shared(Generic[T]):
    def __init__(self, pool: ThreadPoolExecutor, begin: Callable[[], Work[T]], num_threads: int) -> None:
        self.future: Future[T] = Future()
        self._pool, self._num_threads = pool, num_threads
        self._lock = threading.Lock()
        self._left = 1  # the beginning
        self._error: BaseException | None = None
        self._work: Work[T] | None = None
        pool.submit(self._do, lambda: self._begin(begin))

    def _begin(self, begin: Callable[[], Work[T]]) -> None:
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
