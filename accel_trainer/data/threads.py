"""Threads that have one core each, beside a training that has several."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")


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
