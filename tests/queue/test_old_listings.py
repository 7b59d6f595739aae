"""A runner on a client of a network drive that lists a folder as it was."""

from collections.abc import Callable

import pytest
from helpers import write_job
from network.mounts import Mount

from accel_trainer.launch.machine import Machine
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.store import QueueStore

pytestmark = pytest.mark.slow


@pytest.fixture
def client(mount: Callable[..., Mount]) -> Mount:
    return mount("one", listing_s=60)


def test_a_runner_does_not_end_before_it_has_listed_anew_what_is_pending(client: Mount, trained: list[str]) -> None:
    queue, machine = QueueStore(client.folder / "queue"), Machine((), False, 2)
    Runner(queue, machine, lambda event: None).run()  # which makes all folders
    assert queue.jobs(JobState.PENDING) == []
    write_job(client.server / "queue/a.json")
    assert queue.jobs(JobState.PENDING) == [], "it is remembered"
    Runner(queue, machine, lambda event: None).run()
    assert trained == ["a"]
