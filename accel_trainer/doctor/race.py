"""Helper processes, for checks that need several: which of two wins a race, when one sees what another writes."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from accel_trainer.core.processes import parent_death_signal

# Forked: it starts in a millisecond, and a system call that a test has replaced is replaced there, too.
_FORK = multiprocessing.get_context("fork")
ANSWER_LIMIT_S = 10.0
# How long before a race begins both get its time: longer than it takes to send it.
HEAD_START_S = 0.0005


class HelperFailed(Exception):
    """A helper process has not answered in time, or has failed."""


class Helper:
    """The connection to a helper process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: object) -> None:
        """Send an object that can be pickled. Raises HelperFailed where the process has ended, for its exception."""
        try:
            self._connection.send(message)
        except BrokenPipeError:
            self.receive()  # what it has said before it ended
            raise HelperFailed("another process has ended too early") from None

    def receive(self, limit_s: float = ANSWER_LIMIT_S) -> Any:
        """The next object that the process sends. Raises HelperFailed after `limit_s` seconds, or for its exception."""
        try:
            if not self._connection.poll(limit_s):
                raise HelperFailed(f"no answer of another process within {limit_s:.0f} s")
            answer = self._connection.recv()
        except EOFError as error:
            raise HelperFailed("another process has ended without an answer") from error
        if isinstance(answer, Exception):
            raise HelperFailed(f"in another process: {answer}") from answer
        return answer


@contextmanager
def start_helper(work: Callable[[Connection], None]) -> Iterator[Helper]:
    """Start a process that calls `work` with its end of a connection; it is killed at the exit of the context."""
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
        pass  # the parent has closed its end
    except Exception as error:
        connection.send(error)


def race(
    act: Callable[[int, int], Any], prepare: Callable[[int], None], num_rounds: int, limit_s: float
) -> list[tuple[Any, Any]]:
    """Call `act(racer, round)` in two processes at the same moment, once for each round, after `prepare(round)` here.

    Gives the two results of each round, of at most `num_rounds` and as many as fit into `limit_s` seconds. Raises
    HelperFailed.
    """

    def runner(racer: int) -> Callable[[Connection], None]:
        def run(connection: Connection) -> None:
            while True:
                number, begin = connection.recv()
                while time.monotonic() < begin:
                    pass
                connection.send(act(racer, number))

        return run

    results = []
    deadline = time.monotonic() + limit_s
    with ExitStack() as stack:
        racers = [stack.enter_context(start_helper(runner(racer))) for racer in range(2)]
        for number in range(num_rounds):
            if number and time.monotonic() > deadline:
                break
            prepare(number)
            begin = time.monotonic() + HEAD_START_S
            for one in racers:
                one.send((number, begin))
            results.append((racers[0].receive(), racers[1].receive()))
    return results
