"""Jobs of a queue that evaluate: what they wait for, and what becomes of them beside jobs that train."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import said_by, write_job

from accel_trainer.config import EvaluationJob, Job, read_job
from accel_trainer.launch.attempt import Attempt
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.dependencies import evaluated_run, find_evaluated, trainer_of
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.runner import Runner
from accel_trainer.queue.status_table import JobStatus, status_rows
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, write_status


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of job files count from the current folder."""
    monkeypatch.chdir(tmp_path)


def make_run(job: Job, *weights: str) -> None:
    """What a trainer leaves of a run, as far as it is looked at here."""
    run = RunFolder(job.run_path)
    run.create()
    run.config.write_text(json.dumps(job.completed()))
    for name in weights:
        (run.params / f"{name}.safetensors").touch()


def write_evaluation(queue: QueueStore, file: str, evaluate: str, **given: Any) -> Path:
    path = queue.folder / f"{file}.json"
    path.write_text(json.dumps({"evaluate": evaluate, **given}))
    return path


def evaluation(evaluate: str, **given: Any) -> EvaluationJob:
    return EvaluationJob.parse({"evaluate": evaluate, **given}, "e")


def states(queue: QueueStore) -> dict[str, str]:
    return {name: str(state) for name, state in queue.states().items()}


def leave_run(*weights: str) -> Callable[[Attempt], None]:
    """What an attempt does that trains."""

    def do(attempt: Attempt) -> None:
        assert isinstance(attempt.job, Job)
        make_run(attempt.job, *weights)

    return do


# -- what is evaluated -------------------------------------------------------------------------------------------


def test_a_run_folder_is_evaluated_whose_weights_are_there(queue: QueueStore) -> None:
    job = read_job(write_job(queue.folder / "a.json", model_dir="models/a"))
    make_run(job, "best")
    assert find_evaluated(evaluation("models/a"), queue) == Path("models/a"), "whatever else is trained there"
    assert trainer_of(evaluation("models/a"), queue) is None


def test_weights_that_are_not_there_are_waited_for_while_a_job_trains_them(queue: QueueStore) -> None:
    job = read_job(write_job(queue.folder / "a.json", model_dir="models/a"))
    assert trainer_of(evaluation("models/a"), queue) == "a"
    assert trainer_of(evaluation("./models//a"), queue) == "a", "by the folder, however it is written"
    make_run(job, "best")
    assert trainer_of(evaluation("models/a", weights="final"), queue) == "a"
    assert "'models/a' is pending, not done" in said_by(evaluated_run, evaluation("models/a", weights="final"), queue)


def test_a_name_is_of_a_job_which_is_waited_for(queue: QueueStore) -> None:
    job = read_job(write_job(queue.folder / "a.json", model_dir="models/a"))
    make_run(job, "best")
    assert trainer_of(evaluation("a"), queue) == "a", "also where there are some weights"
    queue.finish(queue.jobs(JobState.PENDING)[0], JobState.DONE)
    assert trainer_of(evaluation("a"), queue) is None
    assert find_evaluated(evaluation("a"), queue) == Path("models/a")


def test_a_name_that_comes_later_is_no_mistake(queue: QueueStore) -> None:
    assert find_evaluated(evaluation("b"), queue, coming=["b"]) is None
    assert find_evaluated(evaluation("b", after=["b"]), queue) is None


def test_what_will_never_be_there_is_a_line_with_near_names(queue: QueueStore) -> None:
    job = read_job(write_job(queue.folder / "vgg.json", model_dir="models/vgg"))
    make_run(job, "best")
    queue.finish(queue.jobs(JobState.PENDING)[0], JobState.DONE)
    assert said_by(find_evaluated, evaluation("vgh"), queue) == (
        "evaluate: 'vgh' is not a run folder or a job of the queue training_queue, and no job of the queue trains "
        "there; did you mean 'vgg'?"
    )
    assert said_by(find_evaluated, evaluation("models/vgh"), queue).endswith("did you mean 'models/vgg'?")
    assert said_by(find_evaluated, evaluation("models/vgg", weights="ema"), queue) == (
        "`weights`: models/vgg has no ema weights (ema.safetensors); there are: best"
    )
    write_evaluation(queue, "e", "models/vgg")
    assert said_by(find_evaluated, evaluation("e"), queue) == "evaluate: 'e' is a job that trains nothing"


# -- runners -----------------------------------------------------------------------------------------------------


def test_an_evaluation_waits_for_the_training_and_then_has_its_run(
    queue: QueueStore, runner: Runner, trained: Any
) -> None:
    write_evaluation(queue, "a-by-name", "t", priority=5)
    write_evaluation(queue, "a-by-path", "models/t", weights="final", name="n", priority=5)
    write_job(queue.folder / "t.json", model_dir="models/t", num_epochs=2)
    trained.when["t"] = leave_run("best", "002")
    runner.run()
    assert trained == ["t", "a-by-name", "a-by-path"]
    assert states(queue) == dict.fromkeys(trained, "done")
    attempt = trained.attempts["a-by-name"]
    assert not attempt.is_training
    assert attempt.run.path == Path("models/t/evaluations/validation")
    assert "--run=models/t" in attempt.worker_args
    assert trained.attempts["a-by-path"].run.path == Path("models/t/evaluations/n")


def test_an_evaluation_of_what_has_failed_is_refused_with_the_reason(
    queue: QueueStore, runner: Runner, trained: Any
) -> None:
    write_evaluation(queue, "e", "t")
    write_job(queue.folder / "t.json", model_dir="models/t")
    trained.failing.add("t")
    runner.run()
    assert trained == ["t"]
    (failed,) = [job for job in queue.jobs(JobState.FAILED) if job.name == "e"]
    assert "'t' has failed" in (queue.reason(failed) or "")


def test_weights_that_a_training_did_not_leave_are_a_reason(queue: QueueStore, runner: Runner, trained: Any) -> None:
    write_evaluation(queue, "e", "t", weights="swa")
    write_job(queue.folder / "t.json", model_dir="models/t")
    trained.when["t"] = leave_run("best")
    runner.run()
    assert trained == ["t"]
    (failed,) = queue.jobs(JobState.FAILED)
    assert "models/t has no swa weights" in (queue.reason(failed) or "")


def test_an_evaluation_that_fails_is_tried_again(queue: QueueStore, runner: Runner, trained: Any) -> None:
    make_run(read_job(write_job(Path("t.json"), model_dir="models/t")), "best")
    write_evaluation(queue, "e", "models/t", retries=1)
    trained.endings = [Outcome(OutcomeKind.FAILED, "out of luck", RunState.FAILED)]
    runner.run()
    assert trained == ["e", "e"]
    assert states(queue) == {"e": "done"}


# -- what is shown -----------------------------------------------------------------------------------------------


def test_the_status_has_kinds_and_how_much_was_measured(queue: QueueStore) -> None:
    job = read_job(write_job(queue.folder / "t.json", model_dir="models/t"))
    make_run(job, "best")
    write_evaluation(queue, "by-name", "t")
    write_evaluation(queue, "lost", "models/lost")
    path = write_evaluation(queue, "by-path", "models/t", name="n")
    claim = queue.claim(next(job for job in queue.jobs(JobState.PENDING) if job.path == path))
    assert claim is not None
    folder = RunFolder(Path("models/t/evaluations/n"))
    folder.create()
    write_status(folder, Status(state=RunState.MEASURING, token=claim.token, images=40, num_images=120, eta_s=8.0))
    rows: dict[str, JobStatus] = {row.job: row for row in status_rows(queue)}
    assert {name: row.kind for name, row in rows.items()} == {
        "by-path": "evaluation",
        "by-name": "evaluation",
        "lost": "evaluation",
        "t": "training",
    }
    assert (rows["by-path"].images, rows["by-path"].num_images, rows["by-path"].left_s) == (40, 120, 8.0)
    assert rows["by-path"].epoch is None
    assert rows["by-name"].note == "waits for 't', which is pending"
    assert rows["lost"].note == "waits for what trains in models/lost"
