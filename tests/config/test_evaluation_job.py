"""Job files that evaluate a run: what they may say, and what is said of those that may not be."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import said_by

from accel_trainer.config import EvaluationJob, parse_job
from accel_trainer.config.glance import glance
from accel_trainer.config.parse import job_from, parse_queue_job
from accel_trainer.core.errors import InvalidJob

JOB: dict[str, Any] = {"evaluate": "models/x/a", "degradations": ["noise", {"name": "blur", "levels": [1, 2.5]}]}


def parsed(given: dict[str, Any], name: str = "e") -> EvaluationJob:
    job = parse_queue_job(json.dumps(given).encode(), name, where=f"{name}.json")
    assert isinstance(job, EvaluationJob)
    return job


def test_a_job_with_the_key_evaluate_is_an_evaluation() -> None:
    job = parsed({**JOB, "priority": 3, "retries": 2, "after": ["b"], "time_limit": 5, "weights": None})
    assert (job.priority, job.retries, job.after, job.time_limit, job.stall_timeout) == (3, 2, ["b"], 5.0, 30.0)
    assert (job.plan.weights, job.plan.degradations[1].levels) == ("best", [1, 2.5])
    assert job.run_path == Path("models/x/a/evaluations") / job.plan.folder_name
    assert job.parent_job is None


def test_what_it_comes_to_is_a_job_file_of_the_same_job() -> None:
    job = parsed({**JOB, "priority": 3, "name": "mine"})
    assert job.run_path == Path("models/x/a/evaluations/mine")
    for said in (job.completed(), job.said()):
        assert parsed(said) == job
    assert job.said() == {
        **JOB,
        "degradations": [{"name": "noise"}, JOB["degradations"][1]],
        "priority": 3,
        "name": "mine",
    }
    assert job_from(job.said(), "e") == job


def test_a_word_names_a_job_and_anything_else_a_path() -> None:
    assert parsed({"evaluate": "a"}).parent_job == "a"
    assert parsed({"evaluate": "./a"}).parent_job is None
    assert parsed({"evaluate": "a"}).of_run(Path("models/x/a")).run_path == Path("models/x/a/evaluations/validation")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"evaluate": ""}, 'evaluate: "" is not allowed: String should have at least 1 character'),
        ({"evaluate": "../a"}, "evaluate: '../a' may not contain '..'"),
        ({"evaluate": "a/\x1b"}, "evaluate: 'a/\\x1b' may not contain control characters"),
        ({"weigts": "final"}, "weigts: unknown key; did you mean 'weights'?"),
        ({"num_epochs": 3}, "num_epochs: is of jobs that train; this one evaluates a run"),
        ({"after": ["e"]}, "after: names the job itself"),
        ({"after": ["b.json"]}, "after: 'b.json': the name of a job is that of its file without .json"),
        ({"dataset": "/data/x"}, "dataset: '/data/x' is an absolute path; name a folder below data_root and set"),
        ({"name": "a/b"}, "name: 'a/b' cannot be a folder's name"),
        ({"retries": -1}, "retries: -1 is not allowed"),
        ({"occluder_dir": "a/../b"}, "occluder_dir: 'a/../b' may not contain '..'"),
    ],
)
def test_a_mistake_is_a_line_with_its_key(changes: dict[str, Any], line: str) -> None:
    assert said_by(parsed, {**JOB, **changes}).startswith(f"e.json: {line}")


def test_all_mistakes_are_found_at_once() -> None:
    with pytest.raises(InvalidJob) as caught:
        parsed({"evaluate": 3, "epochs": 1, "optimizer": "SGD", "degradations": [4]})
    assert [line.split(":")[1].strip() for line in caught.value.problems] == [
        "optimizer",
        "epochs",
        "degradations.0",
        "evaluate",
    ]


def test_who_trains_does_not_take_an_evaluation() -> None:
    assert "e.json: evaluate: evaluates a run" in said_by(parse_job, json.dumps(JOB).encode(), "e", "e.json")


def test_an_evaluation_is_listed_by_a_glance_at_its_file(tmp_path: Path) -> None:
    file = tmp_path / "e.json"
    file.write_text(json.dumps({**JOB, "name": "n", "after": ["b"], "retries": 2}))
    found = glance(file, "e")
    assert found is not None
    assert (found.evaluates, found.run_path, found.after, found.retries) == (
        "models/x/a",
        Path("models/x/a/evaluations/n"),
        ("b",),
        2,
    )
    file.write_text(json.dumps({**JOB, "weights": [3]}))
    assert glance(file, "e") is None
