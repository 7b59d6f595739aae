"""How OpenMP's threads wait for their next piece of work: awake while cores are free, asleep while others want them.

libgomp's threads look for the next piece 300,000 times, some three milliseconds, before they sleep. On a quiet machine
that saves waking them. On a busy one it keeps the core from the thread that all wait for. Where it has more threads
than there are cores libgomp looks 100 times: so a few threads that do nothing but sleep switch between both ways, while
a run computes. As many threads compute as before, and come to the same bits.
"""

import ctypes
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from accel_trainer.core.child_environment import WAIT_VARIABLES
from accel_trainer.core.limits import tasks_left

LOOK_EVERY_S = 0.5
# Seconds in each second, of all threads together, that they could have computed and had no core. Our own loader beside
# a small network comes to less, and one process of others that computes to twice as much.
BUSY_SHARE = 0.25
# No more threads are made to sleep: a container on a large machine may not have so many, and libgomp ends a process
# that may not have one.
MOST_SLEEPERS = 64
# Threads of all processes of a user; of which there are, nobody counts.
PLENTY = 4096
# After so many looks that found free cores, threads stay awake again.
CALM_LOOKS = 4


def wait_policy() -> str:
    """How this process's threads wait, for a record: "by load", or whose setting it is."""
    if said := next((name for name in WAIT_VARIABLES if name in os.environ), None):
        return f"{said}={os.environ[said]}"
    return "by load" if _libgomp() and _may_sleep(_num_sleepers()) else "of the library"


@contextmanager
def waiting_by_load() -> Iterator[None]:
    """Threads of OpenMP that wait sleep at once while other work wants this machine's cores, and stay awake for a while
    otherwise; unless the user has said how they wait, or they are not libgomp's."""
    if wait_policy() != "by load":
        yield
        return
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(ended,), name="wait policy", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(ended: threading.Event) -> None:
    """At first they sleep: what is imported and read meanwhile computes little."""
    calm, before, sleepers = 0, _Moment(), Sleepers()
    try:
        while not ended.wait(LOOK_EVERY_S):
            now = _Moment()
            calm = 0 if now.waited_share(before) > BUSY_SHARE else calm + 1
            before = now
            if calm == CALM_LOOKS:
                sleepers.end()
            elif calm == 0 and sleepers.have_ended:
                sleepers = Sleepers()
    finally:
        sleepers.end()


class _Moment:
    """How long each thread of this process has waited for a core by now."""

    def __init__(self) -> None:
        self.time, self._waited_ns = time.monotonic(), waited_ns()

    def waited_share(self, before: "_Moment") -> float:
        """Seconds of waiting in each second since. Where the kernel does not tell, the machine counts as busy."""
        known: Mapping[str, int] = before._waited_ns
        waited = [ns - known[thread] for thread, ns in self._waited_ns.items() if thread in known]
        return sum(waited) / 1e9 / max(self.time - before.time, 1e-3) if waited else 1.0


def waited_ns() -> dict[str, int]:
    """Nanoseconds for which each thread of this process could run and had no core, by the kernel's count."""
    found = {}
    with suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError, ValueError, IndexError):  # it has just ended
                found[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return found


def _num_sleepers() -> int:
    """So many that libgomp has more threads than there are cores."""
    return max(2, len(os.sched_getaffinity(0)) - torch.get_num_threads() + 2)


def _may_sleep(number: int) -> bool:
    """Whether this process may well have so many threads more."""
    left, allowed = tasks_left(), resource.getrlimit(resource.RLIMIT_NPROC)[0]
    is_limited = allowed != resource.RLIM_INFINITY and allowed < PLENTY
    return number <= MOST_SLEEPERS and not is_limited and (left is None or left >= 2 * MOST_SLEEPERS)


class Sleepers:
    """Threads of libgomp that sleep, so many that it has more than there are cores."""

    def __init__(self) -> None:
        self._ended, ready = threading.Event(), threading.Event()
        self._first = threading.Thread(target=self._make, args=(ready,), name="sleepers", daemon=True)
        self._first.start()
        ready.wait()

    @property
    def have_ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended.is_set()

    def end(self) -> None:
        """libgomp ends its threads with the one that has made them."""
        self._ended.set()
        self._first.join()

    def _make(self, ready: threading.Event) -> None:
        try:
            nothing = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p)
            for library in _libgomp():
                library.GOMP_parallel(nothing, None, _num_sleepers(), 0)
        finally:
            ready.set()
        self._ended.wait()


def _libgomp() -> list[ctypes.CDLL]:
    """What of it is loaded: torch brings its own, and so do others."""
    if sys.platform != "linux":
        return []
    with suppress(OSError):
        maps = Path("/proc/self/maps").read_text().splitlines()
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "/libgomp" in line}
        return [ctypes.CDLL(path, mode=os.RTLD_NOLOAD) for path in sorted(paths)]
    return []
