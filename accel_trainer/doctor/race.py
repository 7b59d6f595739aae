"""Other processes of this machine, with which a check tries what one alone cannot: who wins a race, what others see."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from accel_trainer.core.processes import parent_death_signal

# Forked: it starts in a millisecond, and what a test has put in place of a system call counts there too.
_FORK = multiprocessing.get_context("fork")
ANSWER_LIMIT_S = 10.0
# How long before a race begins that both are told: longer than it takes to tell them.
HEAD_START_S = 0.0005


class HelperFailed(Exception):
    """A helper has not answered, or failed."""


class Helper:
    """Another process, seen from this one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: object) -> None:
        self._connection.send(message)

    def receive(self, limit_s: float = ANSWER_LIMIT_S) -> Any:
        """What it says next. Raises NoWord."""
        try:
            if not self._connection.poll(limit_s):
                raise HelperFailed(f"no answer of another process within {limit_s:.0f} s")
            answer = self._connection.recv()
        except EOFError as error:
            raise HelperFailed("another process has ended without a word") from error
        if isinstance(answer, Exception):
            raise HelperFailed(f"in another process: {answer}") from answer
        return answer


@contextmanager
def start_helper(work: Callable[[Connection], None]) -> Iterator[Helper]:
    """Another process that does some work, talks over a connection, and is ended at the exit."""
    ours, theirs = _FORK.Pipe()
    process = _FORK.Process(target=_work, args=(work, theirs, ours, parent_death_signal(signal.SIGKILL)), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Helper(ours)
    finally:
        ours.close()
        process.kill()
        process.join(ANSWER_LIMIT_S)


def _work(
    work: Callable[[Connection], None], connection: Connection, other_end: Connection, die: Callable[[], None]
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent ends it when it has cleaned up
    die()
    other_end.close()
    try:
        work(connection)
    except (EOFError, BrokenPipeError):
        pass  # nobody wants an answer any more
    except Exception as error:
        connection.send(error)


def race(
    act: Callable[[int, int], Any], prepare: Callable[[int], None], num_rounds: int, limit_s: float
) -> list[tuple[Any, Any]]:
    """What `act(who, round)` gives in two processes that begin every round at the same moment, after it was prepared;
    as many rounds as there is time for. Raises NoWord."""

    def runner(who: int) -> Callable[[Connection], None]:
        def run(connection: Connection) -> None:
            while True:
                number, begin = connection.recv()
                while time.monotonic() < begin:
                    pass
                connection.send(act(who, number))

        return run

    results = []
    deadline = time.monotonic() + limit_s
    with ExitStack() as stack:
        two = [stack.enter_context(start_helper(runner(who))) for who in range(2)]
        for number in range(num_rounds):
            if number and time.monotonic() > deadline:
                break
            prepare(number)
            begin = time.monotonic() + HEAD_START_S
            for one in two:
                one.send((number, begin))
            results.append((two[0].receive(), two[1].receive()))
    return results
