"""A job by rules 1 is trained as the version that knew no others trained it, by what that version is recorded to do."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from first_rules import JOBS, RECORD, job_of, materials, names, outcome, world

from accel_trainer.config.rules import CHANGES, RULES
from accel_trainer.run.rules import changes_since

Outcome = dict[str, Any]

RECORDED: dict[str, Any] = json.loads(RECORD.read_text())
LIBRARIES = ("torch", "numpy")
# On other processors; and with other libraries, which may round pixels of 8 bits otherwise: 0.02, normalized.
SAME_LIBRARIES = {"pixels": 2e-4, "parameters": 2e-4}
OTHER_LIBRARIES = {"pixels": 0.05, "parameters": 2e-3}
# By newer rules these differ in rounding alone.
LAST_BITS = (
    "occlusion of a probability of 0",
    "occlusion that hides nothing",
    "blur of probabilities of 0",
    "noise of a probability of 0",
)
outcome_of = cache(outcome)


@pytest.fixture(scope="module", autouse=True)
def in_materials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with materials(tmp_path_factory.mktemp("materials")):
        yield


@pytest.fixture(autouse=True)
def own_environment() -> None:
    """That of the materials, instead of the one that each test has else."""


def tolerances() -> dict[str, float]:
    now, then = world(), RECORDED["world"]
    return SAME_LIBRARIES if all(now[name] == then[name] for name in LIBRARIES) else OTHER_LIBRARIES


def is_near(ours: Outcome, theirs: Outcome, within: dict[str, float]) -> bool:
    """Whether all that is recorded in numbers is the same but for rounding."""

    def near(own: Any, recorded: Any, what: str) -> bool:
        difference = np.subtract(_flat(own), _flat(recorded))
        return bool(np.abs(difference).max() <= within[what])

    return all(
        near(own[key], recorded[key], what)
        for what, pairs in (
            ("pixels", zip(ours["batches"], theirs["batches"], strict=True)),
            ("parameters", [(ours["parameters"], theirs["parameters"])]),
        )
        for own, recorded in pairs
        for key in ("samples", "moments")
    ) and near(ours["labels"], theirs["labels"], "pixels")


def _flat(numbers: Any) -> list[float]:
    return [value for part in numbers for value in _flat(part)] if isinstance(numbers, list | tuple) else [numbers]


def test_the_record_is_of_all_jobs_and_of_the_last_version_without_rules() -> None:
    assert list(RECORDED["outcomes"]) == names()
    assert RECORDED["commit"].startswith("c3af118")


@pytest.mark.parametrize("name", names())
def test_rules_1_come_to_what_they_came_to_when_there_were_no_others(name: str) -> None:
    ours, theirs = outcome_of(name), RECORDED["outcomes"][name]
    assert is_near(ours, theirs, tolerances())
    if world() == RECORDED["world"]:
        assert json.loads(json.dumps(ours)) == theirs, "to the bit"


@pytest.mark.parametrize("name", JOBS)
def test_newer_rules_come_to_something_else_exactly_where_they_say_so(name: str) -> None:
    newest = outcome(name, RULES)
    is_changed = outcome_of(name) != newest
    assert is_changed == (changes_since(job_of(name)) is not None), changes_since(job_of(name))
    if is_changed and name not in LAST_BITS:  # the record would show it, wherever it is compared
        assert not is_near(newest, RECORDED["outcomes"][name], OTHER_LIBRARIES)


def test_each_change_of_the_rules_concerns_one_of_the_recorded_jobs() -> None:
    said = [changes_since(job_of(name)) or "" for name in JOBS]
    others = [change.what for change in CHANGES if not any(change.what in clauses for clauses in said)]
    assert all("channels" in what and "last" in what for what in others)
