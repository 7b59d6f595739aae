"""Further data sets in a job file: what they are called, and which cannot be."""

import json
from typing import Any

import pytest

from accel_trainer.config import Job, parse_job
from accel_trainer.core.errors import UserError


def parse(*eval_sets: str, **given: Any) -> Job:
    content = {"architecture": "resnet18", "eval_sets": list(eval_sets), **given}
    return parse_job(json.dumps(content).encode(), "job", where="job.json")


@pytest.mark.parametrize(
    ("dataset", "split"),
    [
        ("blurred", "val_blurred"),
        ("photos/at night", "val_photos_at_night"),
        ("hf:lab/sketches", "val_sketches"),
        ("hf:sketches", "val_sketches"),
        ("hf:~/sets/a,b/", "val_a_b"),
        ("digits", "val_digits"),
    ],
)
def test_a_further_data_set_has_a_name_in_performance_csv(dataset: str, split: str) -> None:
    assert parse(dataset).eval_splits == {split: dataset}


@pytest.mark.parametrize(
    ("eval_sets", "said"),
    [
        (["a b", "a_b"], "eval_sets: 'a b' and 'a_b' would both be val_a_b; rename one of them"),
        (["hf:x/a", "a"], "eval_sets: 'hf:x/a' and 'a' would both be val_a; rename one of them"),
        (["a", "a"], "eval_sets: 'a' is given twice"),
        (["swa"], "eval_sets: 'swa' would be val_swa, as an average of the weights is; rename it"),
        (["../a"], "eval_sets: '../a' may not contain '..'"),
        (["/sets/a"], "eval_sets: '/sets/a' is an absolute path; name a folder below data_root"),
        ([""], "eval_sets: may not be empty"),
        (["hf:"], "eval_sets: 'hf:' needs a hub id or a path behind it"),
        (["a\nb"], "eval_sets: 'a\\nb' may not contain control characters"),
    ],
)
def test_what_cannot_be_one_is_refused(eval_sets: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(*eval_sets)
    (line,) = caught.value.problems
    assert line.startswith(f"job.json: {said}")
