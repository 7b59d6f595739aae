"""Which job is next, and what does not stop a runner."""

from pathlib import Path

import pytest

from accel_trainer.queue.launcher import Flags, Machine
from accel_trainer.queue.runner import Runner, choose_next
from accel_trainer.queue.store import JobState, Queue, QueuedJob, QueueUnusable


def jobs(*names: str) -> list[QueuedJob]:
    return [QueuedJob(name, Path(f"{name}.json"), JobState.PENDING) for name in names]


def test_the_first_job_is_next_unless_one_of_its_name_is_running():
    assert choose_next(jobs("a", "b"), []).name == "a"
    assert choose_next(jobs("a", "b"), jobs("a")).name == "b"
    assert choose_next(jobs("a"), jobs("a")) is None
    assert choose_next([], []) is None


class Silent:
    """A watcher that says nothing."""

    def __getattr__(self, name: str):
        return lambda *_: None


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), QueueUnusable("cannot be read")])
def test_a_queue_that_cannot_be_read_for_a_moment_does_not_end_a_trainer(tmp_path, monkeypatch, error):
    runner = Runner(Queue(tmp_path), Flags(), Machine((), False, 2), Silent())

    def fails(state: JobState):
        raise error

    monkeypatch.setattr(runner.queue, "jobs", fails)
    runner.tick()
