"""A run folder that is in use, and signs of life that cannot be written, are nobody's mistake."""

import shutil
import time

import pytest
from helpers import write_job

from accel_trainer.cli.event_lines import line_of
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.control import ControlAction, Requests
from accel_trainer.queue.events import HeartbeatLost, HeartbeatWritten, QueuePaused, RetryScheduled
from accel_trainer.queue.finish import AttemptResult, finish_claim
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.status_table import status_rows
from accel_trainer.run.status import RunState


def names(runner: Runner, state: JobState) -> list[str]:
    return [job.name for job in runner.queue.jobs(state)]


def test_jobs_whose_run_folders_are_in_use_wait_and_have_not_failed(runner, trained):
    """However many: nothing is wrong with them, nor with this machine."""
    for name in "abc":
        write_job(runner.queue.folder / f"{name}.json")
    in_use = Outcome(OutcomeKind.FOLDER_IN_USE, "another trains in x", RunState.INVALID, wait_s=0.5)
    trained.endings = [in_use] * 3
    noted = []
    trained.when["b"] = lambda attempt: noted.append(list(status_rows(runner.queue)))
    began = time.monotonic()
    runner.run()
    assert time.monotonic() - began > 0.5
    assert sorted(trained) == list("aabbcc")
    assert (names(runner, JobState.DONE), names(runner, JobState.FAILED), runner.num_failed) == (list("abc"), [], 0)
    assert {(event.kind, event.number) for event in runner.emit.of(RetryScheduled)} == {(in_use.kind, None)}
    notes = {row.job: row.note for row in noted[0]}
    assert notes["a"] == "waits until its run folder may be free: another trains in x"
    assert not runner.emit.of(QueuePaused)
    assert list(runner.queue.paths.retries.iterdir()) == []


@pytest.mark.parametrize("action", ControlAction)
def test_a_job_that_waits_for_its_run_folder_can_be_held_and_canceled(queue, action):
    write_job(queue.folder / "a.json")
    claimed = queue.claim(queue.find("a"))
    Requests(queue).put(claimed, action)
    in_use = Outcome(OutcomeKind.FOLDER_IN_USE, "why", RunState.INVALID, wait_s=60.0)
    finished = finish_claim(queue, Retries(queue), claimed, AttemptResult(in_use, claimed.path))
    assert finished.state is (JobState.HELD if action is ControlAction.HOLD else JobState.FAILED)


def test_that_no_sign_of_life_can_be_written_is_said_once_and_when_it_can_again(runner, trained):
    """As on a disk that is full for them."""
    runners = runner.queue.paths.runners
    for name in "abcd":
        write_job(runner.queue.folder / f"{name}.json")

    def fill(attempt: Attempt) -> None:
        shutil.rmtree(runners)
        runners.touch()

    trained.when = {"a": fill, "c": lambda attempt: runners.unlink()}
    runner.run()
    assert trained == list("abcd")
    (lost,) = runner.emit.of(HeartbeatLost)
    assert lost.problem == f"{runners}: File exists"
    assert len(runner.emit.of(HeartbeatWritten)) == 1
    assert "no sign of life can be written: training_queue/runners: File exists" in line_of(lost)
