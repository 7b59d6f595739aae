"""What is done ahead of time gives way: it must not take a core from a training that runs.

A process without privileges can lower its priority, and not raise it again. One that never trains has a low priority.
One that will train keeps its own, and rests between the modules that it imports, while others wait for the cores, until
it has a job.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path

from accel_trainer.core.processes import pids_with_env

# Follows the file that a trainer without a job waits for, among its arguments.
GIVE_WAY = "--give-way"
# Of processes that never train.
LOW_PRIORITY = 10
# How often it may rest, in seconds that it has computed; for how many times as long; and from which part of the time
# that it has computed on, in which it has waited for a core, others want one.
EVERY_S, RESTS, WAITED = 0.02, 2.0, 0.1
LOOK_S = 0.02
# Of the calling thread, in nanoseconds: how long it has computed, and how long it has waited for a core.
_SCHEDULED = Path("/proc/thread-self/schedstat")


def lower_priority(name: str, value: str) -> None:
    """Let processes that have a variable in their environment, and what they start from now on, yield to all others."""
    for pid in pids_with_env(name, value):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, LOW_PRIORITY)
        with suppress(OSError):  # where each session is scheduled as one, this decides
            Path(f"/proc/{pid}/autogroup").write_text(str(LOW_PRIORITY))


@contextmanager
def giving_way(arguments: Sequence[str]) -> Iterator[None]:
    """What is imported here, by this thread, gives way until the file of its job is there, where these arguments of its
    process say so. Nothing is known of others, and all is done at once, where the kernel does not count who waits."""
    if GIVE_WAY not in arguments or _times() is None:
        yield
        return
    pace = Pace(Path(arguments[arguments.index(GIVE_WAY) - 1]).exists)
    sys.meta_path.insert(0, pace)
    try:
        yield
    finally:
        sys.meta_path.remove(pace)


class Pace(MetaPathFinder):
    """Finds no module, and rests before it says so."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted, self._thread = is_wanted, threading.get_ident()
        self._before, self._looked = _times() or (0.0, 0.0), _computed()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Called by Python before it looks for a module."""
        if threading.get_ident() == self._thread and _computed() - self._looked >= EVERY_S:
            self._rest()

    def _rest(self) -> None:
        now = _times() or self._before
        computed, waited = (after - before for after, before in zip(now, self._before, strict=True))
        self._before, self._looked = now, _computed()
        until = time.monotonic() + RESTS * computed
        while waited > WAITED * computed and time.monotonic() < until and not self._is_wanted():
            time.sleep(LOOK_S)


def _computed() -> float:
    """Seconds that this thread has computed: cheaper than `_times`."""
    return time.thread_time()


def _times() -> tuple[float, float] | None:
    """Seconds that this thread has computed, and has waited for a core; None where that is not known."""
    try:
        computed, waited, _ = map(int, _SCHEDULED.read_text().split())
    except (OSError, ValueError):
        return None
    return computed / 1e9, waited / 1e9
