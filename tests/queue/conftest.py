"""What the tests of a runner share."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from accel_trainer.queue import checker, reclaim, run_claim, runner, scheduler
from accel_trainer.queue.store import QueueStore


@pytest.fixture
def queue() -> QueueStore:
    """An empty queue in the test's folder."""
    queue = QueueStore(Path("training_queue"))
    queue.create()
    return queue


@pytest.fixture
def in_place_of_trainers(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Has runners go through attempts with another coroutine; nor are jobs looked at with torch, and nobody waits for
    long."""

    def put(go_through: object) -> None:
        monkeypatch.setattr(run_claim, "run_attempt", go_through)
        for module in (reclaim, scheduler):
            monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
        for module in (reclaim, runner):
            monkeypatch.setattr(module, "POLL_S", 0.005)
        monkeypatch.setattr(scheduler, "LARGEST_PART", 1.0)
        monkeypatch.setattr(checker, "SETTLED_S", 0.1)
        monkeypatch.setattr(sys, "executable", "/bin/false")

    return put
