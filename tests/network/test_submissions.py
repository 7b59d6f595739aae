"""One submission, seen through clients that show other times, is one submission."""

import json
import os
from collections.abc import Callable

import pytest
from helpers import write_job
from network.mounts import Mount

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import Submissions

pytestmark = pytest.mark.slow


@pytest.fixture(params=["whole seconds", "another clock"])
def clients(mount: Callable[..., Mount], request: pytest.FixtureRequest) -> list[QueueStore]:
    """The queue as two clients show it."""
    odd = {"whole_seconds": True} if request.param == "whole seconds" else {"clock_s": 12345.678}
    mounts = [mount("one"), mount("other", **odd, own_inodes=True)]
    queues = [QueueStore(one.folder / "training_queue") for one in mounts]
    queues[0].create()
    path = write_job(queues[0].folder / "a.json", retries=3)
    os.utime(path, ns=(1_600_000_000_700_000_001,) * 2)
    return queues


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_failures_are_counted_through_clients_that_show_other_times(
    clients: list[QueueStore], order: tuple[int, int]
) -> None:
    first, second = (clients[number] for number in order)
    Retries(first).add(first.find("a"), 1, "why")
    before = Retries(second).of(second.find("a"))
    assert before is not None
    assert before.number == 1
    Retries(second).add(second.find("a"), 2, "why")
    assert Retries(first).of(first.find("a")).number == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_submission_is_called_the_same_by_all_who_attempt_it(
    clients: list[QueueStore], order: tuple[int, int]
) -> None:
    first, second = (clients[number] for number in order)
    claimed = first.claim(first.find("a"))
    name = Submissions(first.paths).note(claimed)
    first.release(claimed)
    (job,) = second.jobs(JobState.PENDING)
    claimed = second.claim(job)
    assert Submissions(second.paths).note(claimed) == name
    second.finish(claimed, JobState.FAILED, "why")
    second.retry(second.find("a"))
    assert Submissions(first.paths).of(first.find("a")) == name


def test_what_is_submitted_again_is_another_submission(clients: list[QueueStore]) -> None:
    first, second = clients
    name = Submissions(first.paths).note(first.find("a"))
    content = json.loads((first.folder / "a.json").read_text())
    (first.folder / "a.json").write_text(json.dumps(content))  # the same again, now
    assert Submissions(second.paths).of(second.find("a")) != name
    os.utime(first.folder / "a.json", ns=(1_600_000_000_700_000_001,) * 2)
    assert Submissions(second.paths).of(second.find("a")) == name
    (first.folder / "a.json").write_text(json.dumps({**content, "seed": 1}))
    os.utime(first.folder / "a.json", ns=(1_600_000_000_700_000_001,) * 2)
    assert Submissions(second.paths).noted(second.find("a")) is None


def test_a_submission_keeps_its_name_in_another_queue(clients: list[QueueStore]) -> None:
    first, second = clients
    name = Submissions(first.paths).note(first.find("a"))
    target = QueueStore(second.folder.parent / "other_queue")
    target.create()
    second.move_to(target, second.find("a"))
    assert Submissions(target.paths).of(target.find("a")) == name
    target = QueueStore(first.folder.parent / "other_queue")
    assert Submissions(target.paths).of(target.find("a")) == name
