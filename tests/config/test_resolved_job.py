import subprocess
import sys
from typing import Any

import pytest
from helpers import said_by

from accel_trainer.config import Job, ResolvedJob

FOUND = {"auto": 64, "LRfinder": 0.1}


def job(**given: Any) -> Job:
    return Job.model_validate({"architecture": "small_cnn", **given})


def test_a_job_with_numbers_is_resolved_and_resolves_to_the_same() -> None:
    given = job(batch_size=32)
    resolved = given.resolve()
    assert given.is_resolved
    assert isinstance(resolved, ResolvedJob)
    assert resolved.completed() == given.completed()
    assert list(resolved.completed()) == list(given.completed())


def test_numbers_that_were_found_take_the_places_of_their_words() -> None:
    given = job(batch_size="auto", optimizer_args={"lr": "LRfinder", "momentum": 0.5, "weight_decay": 0})
    resolved = given.resolve(FOUND)
    assert not given.is_resolved
    assert resolved.is_resolved
    assert resolved.batch_size == 64
    assert resolved.optimizer_args == {"lr": 0.1, "momentum": 0.5, "weight_decay": 0}
    assert resolved.name == given.name


@pytest.mark.parametrize("key", ["auto", "LRfinder"])
def test_a_job_resolves_only_when_every_number_is_known(key: str) -> None:
    given = job(batch_size="auto", optimizer_args={"lr": "LRfinder"})
    some = {word: number for word, number in FOUND.items() if word != key}
    assert not given.with_found(some).is_resolved
    assert f"{key!r} is not resolved yet" in said_by(given.resolve, some)


def test_placeholders_resolve_a_job_without_looking_for_numbers() -> None:
    resolved = job(batch_size="auto", optimizer_args={"lr": "batch_linear"}).with_placeholders(16)
    assert isinstance(resolved, ResolvedJob)
    assert resolved.batch_size == 16
    assert isinstance(resolved.optimizer_args["lr"], float)


def test_a_copy_of_a_resolved_job_is_resolved_too() -> None:
    resolved = job(batch_size="auto").resolve(FOUND)
    assert isinstance(resolved.model_copy(update={"num_epochs": 3}), ResolvedJob)


def test_what_validates_resolved_jobs_is_never_made_for_their_record() -> None:
    """To make it takes a tenth of what a training does before its first step."""
    code = """
from accel_trainer.config import Job
from accel_trainer.config.job import ResolvedJob
Job(architecture="small_cnn", batch_size=2).resolve().completed()
print(ResolvedJob.__pydantic_complete__)
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"
