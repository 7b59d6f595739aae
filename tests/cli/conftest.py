"""What the tests of the verbs share."""

from pathlib import Path

import pytest

from accel_trainer.queue.store import QueueStore


@pytest.fixture
def queue() -> QueueStore:
    queue = QueueStore(Path("training_queue"))
    queue.create()
    return queue
