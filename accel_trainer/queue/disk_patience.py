"""How a runner goes on while the disk of its queue is away: what fails is tried again, what hangs is said."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accel_trainer.core.disk_calls import retrying, saying_hangs
from accel_trainer.core.outage import seconds_wanted
from accel_trainer.core.processes import StopRequest
from accel_trainer.queue.events import DiskNotice, Emit

# For how long a runner does nothing else: a trainer goes on meanwhile, and a lease is ten times as long.
PATIENCE_S = 60.0


@contextmanager
def patient_with_disk(queue: Path, stop: StopRequest, emit: Emit) -> Iterator[None]:
    """In this context calls on the queue and on run folders wait out an outage, until a stop is requested."""

    def say(line: str) -> None:
        emit(DiskNotice(line))

    seconds = min(PATIENCE_S, seconds_wanted())
    was_there = [queue] if os.path.isdir(queue) else []  # noqa: PTH112 - never raises
    with retrying(seconds, lambda: bool(stop), say, was_there), saying_hangs(say):
        yield
