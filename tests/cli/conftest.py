"""What the tests of the verbs share."""

from pathlib import Path

import pytest

from accel_trainer.queue.store import Queue


@pytest.fixture
def queue() -> Queue:
    queue = Queue(Path("training_queue"))
    queue.create()
    return queue
