"""Jobs that are tried again: how often, and when."""

import json
import time

import pytest
from helpers import write_job

from accel_trainer.queue import retries as retries_module
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import JobGone, QueueStore
from accel_trainer.queue.submissions import submission_of


@pytest.fixture
def job(queue: QueueStore) -> QueuedJob:
    write_job(queue.folder / "job.json")
    return queue.jobs(JobState.PENDING)[0]


def test_a_submission_is_known_again_after_the_file_has_moved(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    before = submission_of(path)
    assert submission_of(path.rename(tmp_path / "b.json")) == before
    path.write_text("{} ")
    assert submission_of(path) != before


def test_the_backoff_doubles_after_each_failure_up_to_an_hour(queue, job, monkeypatch):
    monkeypatch.setattr(retries_module.time, "time", lambda: 1000.0)
    retries = Retries(queue, 60)
    rests = [retries.backoff_s(retries.add(job, number, "why")) for number in (1, 2, 3, 20)]
    assert rests == [60, 120, 240, 3600]


def test_every_runner_knows_who_rests_until_it_is_over(queue, job, monkeypatch):
    Retries(queue, 60).add(job, 1, "why")
    others = Retries(queue, 60)
    assert 0 < others.backing_off([job])["job"] <= 60
    assert others.of(job).reason == "why"
    now = time.time()
    monkeypatch.setattr(retries_module.time, "time", lambda: now + 61)
    assert others.backing_off([job]) == {}
    assert others.of(job).number == 1


def test_a_clock_that_was_set_back_keeps_nobody_waiting(queue, job, monkeypatch):
    retries = Retries(queue, 60)
    retries.add(job, 1, "why")
    monkeypatch.setattr(retries_module.time, "time", lambda: 0.0)
    assert retries.backing_off([job]) == {}


def test_a_job_that_was_submitted_anew_has_not_failed(queue, job):
    retries = Retries(queue, 60)
    retries.add(job, 1, "why")
    write_job(job.path, seed=17)
    assert retries.of(job) is None
    assert retries.backing_off([job]) == {}


@pytest.mark.parametrize("content", ["", "[]", "{}", "\0", json.dumps({"number": 1})])
def test_a_note_that_cannot_be_read_is_none(queue, job, content):
    queue.paths.retries.mkdir()
    (queue.paths.retries / "job.json").write_text(content)
    assert Retries(queue, 60).backing_off([job]) == {}


def test_a_job_whose_file_was_taken_away_is_gone(queue, job):
    job.path.unlink()
    with pytest.raises(JobGone, match=r"job\.json is gone"):
        Retries(queue, 60).add(job, 1, "why")


def test_failures_of_the_machine_wait_longer_each_time_and_count_as_none_of_the_job(queue, job, monkeypatch):
    retries = Retries(queue, 60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert retries.backoff_s(retries.add_of_machine(job, "away")) == 60
    assert retries.backoff_s(retries.add_of_machine(job, "away")) == 120
    failures = retries.add(job, 1, "memory")
    assert (failures.number, failures.of_machine, retries.backoff_s(failures)) == (1, 0, 60)
    failures = retries.add_of_machine(job, "away")
    assert (failures.number, failures.of_machine, retries.backoff_s(failures)) == (1, 1, 120)
    monkeypatch.setattr(time, "time", lambda: now + 3 * 3600)
    assert retries.add_of_machine(job, "away").of_machine == 1
