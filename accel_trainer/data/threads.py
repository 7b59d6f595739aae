"""Threads that have one core each, beside a training that has several."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def single_core_threads(number: int, name: str) -> ThreadPoolExecutor:
    """Threads whose tensors use one core each: threads of threads would get into each other's way, and the last bits of
    a matrix product depend on their number.

    The calling thread keeps its own number. It has none before it asks torch for the first time, and would be given
    what any thread set last: another number, and other last bits, than without the pool.
    """
    torch.get_num_threads()
    return ThreadPoolExecutor(number, name, initializer=torch.set_num_threads, initargs=(1,))


def on_one_core(call: Callable[[], T]) -> T:
    """Call in this thread as a thread of such a pool does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(before)
