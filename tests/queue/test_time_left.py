"""How long a queue still takes, by what its runs have taken."""

from pathlib import Path

import pytest
from helpers import dead_token, write_job

from accel_trainer.queue import status_book, time_left
from accel_trainer.queue.heartbeat import HeartbeatWriter
from accel_trainer.queue.layout import ClaimedJob, JobState
from accel_trainer.queue.status_book import StatusBook
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.submissions import submission_of
from accel_trainer.queue.time_left import TimeLeft, TimeLeftEstimator
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow, write_performance
from accel_trainer.run.status import RunState, Status, write_status


@pytest.fixture
def queue() -> QueueStore:
    queue = QueueStore(Path("training_queue"))
    queue.create()
    return queue


def estimated(queue: QueueStore) -> TimeLeft:
    return TimeLeftEstimator(queue).estimate(StatusBook(queue).look())


def measured(name: str, *seconds: float) -> RunFolder:
    """The run of a job whose epochs took so many seconds, a fifth of that for the validation."""
    run = RunFolder(Path(f"models/{name}"))
    run.create()
    rows = [
        PerformanceRow(epoch + 1, split, {"loss": 1.0}, 0.1, 100.0, part * each)
        for epoch, each in enumerate(seconds)
        for split, part in (("train", 0.8), ("val", 0.2))
    ]
    write_performance(run, rows)
    return run


def job(queue: QueueStore, name: str, state: JobState = JobState.PENDING, **changes: object) -> None:
    write_job(queue.paths.of(state) / f"{name}.json", model_dir=f"models/{name}", num_epochs=10, **changes)


def begun(queue: QueueStore, name: str, left_s: float | None, places: int = 1) -> ClaimedJob:
    job(queue, name)
    claimed = queue.claim(queue.find(name))
    HeartbeatWriter(queue, places, print).begin(claimed.token, ())
    status = Status(state=RunState.TRAINING, token=claimed.token, epoch=2, num_epochs=10, eta_s=left_s)
    write_status(measured(name), status)
    return claimed


def test_nothing_is_said_where_no_run_has_finished_an_epoch(queue: QueueStore) -> None:
    assert estimated(queue) == TimeLeft(None, 0, 0, 1)
    job(queue, "a")
    assert estimated(queue) == TimeLeft(None, 1, 1, 1)


def test_pending_jobs_take_their_epochs_times_the_median_epoch_of_like_runs(queue: QueueStore) -> None:
    for name, seconds in (("d1", 10.0), ("d2", 20.0), ("d3", 400.0)):
        job(queue, name, JobState.DONE)
        measured(name, seconds, seconds)
    job(queue, "a")
    job(queue, "b")
    job(queue, "unlike", architecture="resnet18")
    left = estimated(queue)
    assert (left.num_jobs, left.num_unknown, left.places) == (3, 1, 1)
    assert left.seconds == pytest.approx(2 * 10 * 20.0)


def test_jobs_that_run_side_by_side_divide_the_time_and_the_longest_bounds_it(queue: QueueStore) -> None:
    begun(queue, "a", 100.0, places=2)
    assert estimated(queue) == TimeLeft(100.0, 1, 0, 2), "one alone is not divided"
    measured("a", 30.0)
    job(queue, "b")
    assert estimated(queue).seconds == pytest.approx((100 + 10 * 30.0) / 2)


def test_an_interrupted_job_has_only_the_epochs_that_are_left(queue: QueueStore) -> None:
    job(queue, "d", JobState.DONE)
    measured("d", 10.0)
    job(queue, "a")
    status = Status(state=RunState.PREEMPTED, epoch=4, num_epochs=10, step=1, steps_per_epoch=5,
                    submission=submission_of(queue.folder / "a.json"))  # fmt: skip
    write_status(measured("a"), status)
    assert estimated(queue).seconds == pytest.approx(7 * 10.0)


def test_jobs_of_a_dead_runner_have_no_time_left(queue: QueueStore) -> None:
    job(queue, "a")
    (queue.folder / "a.json").rename(queue.folder / f"running/a@here.{dead_token()}.json")
    assert estimated(queue) == TimeLeft(None, 1, 1, 1)


def test_what_is_over_is_read_once_and_again_when_it_has_changed(queue: QueueStore, monkeypatch) -> None:
    read: list[str] = []
    original = status_book.resting_row
    monkeypatch.setattr(status_book, "resting_row", lambda *of: (read.append(of[1].name), original(*of))[1])
    job(queue, "a", JobState.DONE)
    book = StatusBook(queue)
    book.look()
    book.look()
    assert read == ["a"]
    job(queue, "b", JobState.FAILED)
    assert [entry.row.job for entry in book.look()] == ["b", "a"]
    assert read == ["a", "b"]


def test_a_look_reads_only_for_a_while_and_the_next_goes_on(queue: QueueStore, monkeypatch) -> None:
    monkeypatch.setattr(status_book, "READS_FOR_S", -1.0)
    job(queue, "a", JobState.FAILED)
    (queue.folder / "failed/a.reason.txt").write_text("why")
    book = StatusBook(queue)
    assert [(entry.row.state, entry.row.note) for entry in book.look()] == [("failed", None)]
    monkeypatch.setattr(status_book, "READS_FOR_S", 1.0)
    assert [entry.row.note for entry in book.look()] == ["why"]


def test_of_very_many_pending_jobs_the_rest_is_of_unknown_length(queue: QueueStore, monkeypatch) -> None:
    monkeypatch.setattr(time_left, "MOST_PENDING", 1)
    job(queue, "d", JobState.DONE)
    measured("d", 10.0)
    job(queue, "a")
    job(queue, "b")
    left = estimated(queue)
    assert (left.num_unknown, left.seconds) == (1, pytest.approx(100.0))
