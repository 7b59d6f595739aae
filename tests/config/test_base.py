"""Job files that name a base: what both say together, and what is wrong with either."""

import json
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.config import EvaluationJob, Job, parse_job, read_job, read_queue_job
from accel_trainer.config.base import merged, standing_alone
from accel_trainer.config.key_lines import key_lines, lines_of_file
from accel_trainer.core.errors import InvalidJob

BASE = {
    "architecture": "small_cnn",
    "num_epochs": 3,
    "optimizer_args": {"lr": 0.1, "momentum": 0.5},
    "after": ["a", "b"],
}


def write(path: Path, said: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said, indent=2))
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        read_job(path)
    return caught.value.problems


def test_a_job_says_what_its_base_says_but_for_its_own(tmp_path: Path) -> None:
    write(tmp_path / "bases/all.json", BASE)
    mine = write(tmp_path / "mine.json", {"base": "bases/all.json", "optimizer_args": {"lr": 0.2}, "after": ["c"]})
    job = read_job(mine)
    assert job == Job(
        name="mine", architecture="small_cnn", num_epochs=3, optimizer_args={"lr": 0.2, "momentum": 0.5}, after=["c"]
    )
    assert read_queue_job(mine) == job
    assert parse_job(standing_alone(mine), "mine", "mine.json") == job


@pytest.mark.parametrize(
    ("beneath", "own", "together"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": 1, "b": 2}, {"b": None}, {"a": 1}),
        ({"o": {"x": 1, "y": {"z": 1, "w": 2}}}, {"o": {"y": {"w": None}}}, {"o": {"x": 1, "y": {"z": 1}}}),
        ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
        ({"m": True}, {"m": {"alpha": 1}}, {"m": {"alpha": 1}}),
        ({"m": {"alpha": 1}}, {"m": False}, {"m": False}),
        ({}, {"a": None, "o": {"b": None}}, {"o": {"b": None}}),
    ],
)
def test_objects_are_merged_by_their_keys_and_null_takes_away(
    beneath: dict[str, Any], own: dict[str, Any], together: dict[str, Any]
) -> None:
    assert merged(beneath, own) == together


def test_a_file_without_a_base_is_read_as_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_bytes(b' {"architecture":"small_cnn"}')
    assert standing_alone(mine) == mine.read_bytes()


def test_editors_find_their_schema_and_jobs_do_not(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.json", {"$schema": "job.schema.json", "architecture": "small_cnn"})
    assert read_job(mine) == Job(name="mine", architecture="small_cnn")
    evaluation = write(tmp_path / "e.json", {"$schema": "job.schema.json", "evaluate": "models/x/a"})
    assert isinstance(read_queue_job(evaluation), EvaluationJob)


def test_evaluations_may_have_a_base_too(tmp_path: Path) -> None:
    write(tmp_path / "base.json", {"evaluate": "models/x/a", "weights": "final"})
    job = read_queue_job(write(tmp_path / "e.json", {"base": "base.json", "degradations": ["noise"]}))
    assert isinstance(job, EvaluationJob)
    assert (job.evaluate, job.plan.weights) == ("models/x/a", "final")


@pytest.mark.parametrize("named", [3, "", ["base.json"], {"file": "base.json"}])
def test_a_base_is_one_file(tmp_path: Path, named: Any) -> None:
    mine = write(tmp_path / "mine.json", {"base": named})
    assert problems(mine) == [f'{mine}: base: name one job file, such as "other.json"']


def test_a_base_that_is_not_there_has_a_base_or_is_no_json_is_named(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.json", {"base": "other.json"})
    other = tmp_path / "other.json"
    assert problems(mine) == [f"{mine}: base: {other} cannot be read: No such file or directory"]
    write(other, {"base": "third.json"})
    assert problems(mine) == [f"{mine}: base: {other} has a base itself; a base is a job file that names none"]
    other.write_text('{"architecture": "small_cnn",}')
    (problem,) = problems(mine)
    assert problem.startswith(f"{other}: line 1")


def test_null_is_no_base(tmp_path: Path) -> None:
    assert read_job(write(tmp_path / "mine.json", {"base": None, **BASE})).num_epochs == 3


def test_a_job_in_the_queue_stands_alone() -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job(json.dumps({"base": "other.json", "num_epoch": 3}).encode(), "mine", where="mine.json")
    first, *others = caught.value.problems
    assert first.startswith("mine.json: base: a job in the queue stands alone")
    assert "accel-train add" in first
    assert any("num_epoch: unknown key" in line for line in others)


def test_each_key_has_its_line() -> None:
    text = """{
      "a": 1, "b": {"c": [1,
        {"d": "x: {y"}],
        "e\\"f": 2},
      # a comment: of Python
      'g': True
    }"""
    lines = key_lines(text)
    assert {key: lines[key] for key in ("a", "b", "b.c", "b.d", 'b.e"f', "g")} == {
        "a": 2,
        "b": 2,
        "b.c": 2,
        "b.d": 3,
        'b.e"f': 4,
        "g": 6,
    }


def test_a_key_of_the_base_is_there(tmp_path: Path) -> None:
    base = write(tmp_path / "base.json", BASE)
    mine = write(tmp_path / "mine.json", {"base": "base.json", "optimizer_args": {"lr": 0.2}})
    lines = lines_of_file(mine)
    assert lines["optimizer_args.lr"] == (mine, 4)
    assert lines["optimizer_args.momentum"] == (base, 6)
    assert lines["num_epochs"] == (base, 3)
    assert lines_of_file(tmp_path / "nowhere.json") == {}
