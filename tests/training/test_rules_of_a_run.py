"""A run that was begun by older rules of training is trained by them to its end, to the bit."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import TINY
from safetensors.torch import load_file

from accel_trainer.config import Job
from accel_trainer.config.rules import RULES
from accel_trainer.core.processes import StopRequest
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.session import SessionOptions, train

MakeJob = Callable[..., Job]
Weights = dict[str, torch.Tensor]

pytestmark = pytest.mark.usefixtures("sessions_in_caplog", "tiny_models")

MIXED: dict[str, Any] = {**TINY, "class_subset": [0, 1, 2, 3], "num_epochs": 2, "cutmix": True, "mixup": {"alpha": 0.4}}


def session(folder: Path, job: Job) -> TrainingResult:
    run = RunFolder(folder)
    run.create()
    return train(job, run, StopRequest(), SessionOptions(cpu=True, prints=False))


def last_weights(folder: Path) -> Weights:
    return load_file(RunFolder(folder).weights(2))


def forget_rules(folder: Path) -> None:
    """Make a config.json what versions before the record of rules have written."""
    path = RunFolder(folder).config
    config = json.loads(path.read_text())
    del config["rules"]
    for key in ("cutmix", "mixup"):
        if config[key] is not None:
            del config[key]["per"]
    path.write_text(json.dumps(config))


def same(first: Weights, second: Weights) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture
def by_first_rules(make_job: MakeJob, tmp_path: Path) -> Path:
    """A run of one epoch as an older version leaves it."""
    folder = tmp_path / "old"
    session(folder, make_job(**{**MIXED, "num_epochs": 1}, rules=1)).check()
    forget_rules(folder)
    return folder


def test_an_old_run_is_continued_by_its_own_rules_bit_for_bit(
    make_job: MakeJob, tmp_path: Path, by_first_rules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "accel_trainer")
    for folder, rules in (("whole", 1), ("new", RULES)):
        session(tmp_path / folder, make_job(**MIXED, rules=rules)).check()
    session(by_first_rules, make_job(**MIXED)).check()
    assert "by rules 1" in caplog.text
    assert "one mixture" in caplog.text
    assert same(last_weights(by_first_rules), last_weights(tmp_path / "whole"))
    assert not same(last_weights(by_first_rules), last_weights(tmp_path / "new"))
    config = json.loads(RunFolder(by_first_rules).config.read_text())
    assert (config["rules"], config["cutmix"]["per"]) == (1, "image")


def test_an_old_run_is_not_continued_by_new_rules_unless_changes_are_allowed(
    make_job: MakeJob, by_first_rules: Path
) -> None:
    refused = session(by_first_rules, make_job(**MIXED, rules=2))
    assert refused.reason is not None
    assert "rules was 1, is 2; by rules 2 all images of a batch have one mixture" in refused.reason
    session(by_first_rules, make_job(**MIXED, rules=2, allow_changes=True)).check()
    assert json.loads(RunFolder(by_first_rules).config.read_text())["rules"] == 2


def test_a_job_that_no_change_concerns_goes_on_by_any_rules(make_job: MakeJob, tmp_path: Path) -> None:
    plain = {**MIXED, "cutmix": None, "mixup": None}
    session(tmp_path / "run", make_job(**{**plain, "num_epochs": 1})).check()
    forget_rules(tmp_path / "run")
    for folder in ("run", "whole"):
        session(tmp_path / folder, make_job(**plain, rules=2)).check()
    assert same(last_weights(tmp_path / "run"), last_weights(tmp_path / "whole"))
