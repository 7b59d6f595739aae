"""Coroutines from where there is no event loop yet: also where there is too little room for one."""

import asyncio
import selectors
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """As `asyncio.run`, of a coroutine that is made once there can be a loop for it.

    Raises OSError where too many files are open for one: asyncio would leave half a loop, of which Python prints a
    traceback when it is removed, and a coroutine that nobody has awaited.
    """
    _open_what_a_loop_needs()
    return asyncio.run(make())


def _open_what_a_loop_needs() -> None:
    with selectors.DefaultSelector():
        for end in socket.socketpair():
            end.close()
