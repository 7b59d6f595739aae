"""Coroutines are run in a loop of their own, or fail with one error."""

import asyncio
import errno
import socket
from typing import NoReturn

import pytest

from accel_trainer.core.event_loop import run_async


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


def test_a_coroutine_is_run_to_its_result() -> None:
    assert run_async(answer) == 42


def test_no_coroutine_is_made_where_too_many_files_are_open_for_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socketpair(*args: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    made: list[bool] = []

    async def note() -> None: ...

    def make() -> object:
        made.append(True)
        return note()

    monkeypatch.setattr(socket, "socketpair", no_socketpair)
    with pytest.raises(OSError, match="Too many open files"):
        run_async(make)
    assert made == []
