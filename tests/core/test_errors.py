import pickle
from pathlib import Path

import pytest

from accel_trainer.core.errors import AccelTrainError, InvalidJob, Problem, UserError


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("too large"), "too large"),
        (Problem("too large", key="lr"), "lr: too large"),
        (Problem("too large", where=Path("a/job.json"), key="lr"), "a/job.json: lr: too large"),
        (Problem("is there already", where="runs", hint="choose another"), "runs: is there already; choose another"),
        (Problem("no GPU 7", option="gpus", hint="there are 0, 1"), "`gpus`: no GPU 7; there are 0, 1"),
        (Problem("given twice", option="set", key="seed"), "`set` seed: given twice"),
    ],
)
def test_a_problem_reads_where_key_message_and_then_its_hint(problem: Problem, line: str) -> None:
    assert str(problem) == line


def test_an_error_joins_its_problems_and_keeps_them_apart() -> None:
    error = UserError("lr: too large", Problem("missing", key="seed"))
    assert str(error) == "lr: too large\nseed: missing"
    assert error.problems == ["lr: too large", "seed: missing"]
    assert error.details == (Problem("lr: too large"), Problem("missing", key="seed"))


def test_the_fields_of_a_message_are_given_with_it() -> None:
    error = UserError("too large", where="job.json", key="lr", hint="use 0.1")
    assert error.details == (Problem("too large", where="job.json", key="lr", hint="use 0.1"),)


def test_an_error_of_one_parameter_becomes_one_of_another() -> None:
    error = InvalidJob("no folder x", key="dataset", hint="bundled: digits")
    moved = error.under("eval_sets").at("job.json")
    assert isinstance(moved, InvalidJob)
    assert str(moved) == "job.json: eval_sets: no folder x; bundled: digits"
    assert str(moved.at(None).under(None).of_option("dataset")) == "`dataset`: no folder x; bundled: digits"
    assert str(error) == "dataset: no folder x; bundled: digits"


def test_an_error_reaches_another_process_with_all_its_fields() -> None:
    error = InvalidJob(Problem("too large", key="lr"), "missing", where="job.json")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InvalidJob
    assert copy.details == error.details


def test_who_catches_the_base_class_catches_every_error() -> None:
    assert issubclass(UserError, AccelTrainError)
    assert issubclass(InvalidJob, UserError)
