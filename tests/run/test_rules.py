"""A run goes on by the rules that it was begun by."""

import json
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.config import Job
from accel_trainer.config.rules import CHANGES, RULES, Change
from accel_trainer.core.errors import UserError
from accel_trainer.run import rules
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import run_job, trained_job
from accel_trainer.run.records import Origin, write_origin
from accel_trainer.run.rules import as_its_run_goes_on, changes_since, rules_of

MIXED = {"architecture": "resnet18", "cutmix": True, "channels_last": False}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def begin(run: RunFolder, **changes: Any) -> None:
    """A run whose config.json has these values; None takes a key away."""
    config = {**Job(**MIXED).completed(), **changes}
    run.config.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def begin_by_first_rules(run: RunFolder) -> None:
    """As versions before the record wrote it."""
    begin(run, rules=None, cutmix={"alpha": 1.0})


def per(job: Job) -> str:
    assert job.cutmix is not None
    return job.cutmix.per


def test_a_run_without_the_record_was_begun_by_the_first_rules(run: RunFolder) -> None:
    assert rules_of(run) is None
    begin_by_first_rules(run)
    assert rules_of(run) == 1
    begin(run)
    assert rules_of(run) == RULES


def test_an_old_run_is_loaded_by_its_own_rules(run: RunFolder) -> None:
    begin_by_first_rules(run)
    for job in (run_job(run), trained_job(run)):
        assert (job.rules, per(job)) == (1, "image")
    begin(run)
    assert (trained_job(run).rules, per(trained_job(run))) == (RULES, "batch")


def test_an_old_run_goes_on_by_its_rules_and_a_new_one_by_the_newest(run: RunFolder) -> None:
    job = Job(**MIXED)
    assert as_its_run_goes_on(job, run) is job
    begin_by_first_rules(run)
    found = as_its_run_goes_on(job, run)
    assert (found.rules, per(found)) == (1, "image")
    assert changes_since(found) == CHANGES[0].what
    assert changes_since(job) is None


def test_every_change_that_concerns_an_old_run_is_said_of_it(run: RunFolder) -> None:
    """Also one that its file leaves open."""
    begin_by_first_rules(run)
    job = Job(**MIXED, optimizer_args={"lr": 0.1}, randomerase=0)
    said = changes_since(as_its_run_goes_on(job, run)) or ""
    assert [change for change in CHANGES if change.what in said] == [
        change for change in CHANGES if change.what.split()[0] in ("all", "erasing", "optimizer_args")
    ]


def test_rules_that_a_job_names_are_its_own(run: RunFolder) -> None:
    begin_by_first_rules(run)
    assert as_its_run_goes_on(Job(**MIXED, rules=2), run).rules == 2
    begin(run)
    assert as_its_run_goes_on(Job(**MIXED, rules=1), run).rules == 1


@pytest.mark.parametrize(("checkpoint", "goes_on_by"), [(None, 1), (-1, RULES), (0, RULES), (3, 1)])
def test_a_run_that_starts_over_has_the_newest_rules(run: RunFolder, checkpoint: int | None, goes_on_by: int) -> None:
    begin_by_first_rules(run)
    job = Job(**MIXED, checkpoint=checkpoint)
    assert as_its_run_goes_on(job, run, "first").rules == goes_on_by


def test_a_run_that_was_interrupted_while_it_started_over_keeps_its_rules(run: RunFolder) -> None:
    job = Job(**MIXED, checkpoint=3)
    laid_out = RunFolder(run.next_run)
    laid_out.create()
    write_origin(laid_out, Origin("mine", 3, "params/003.safetensors", rules=1))
    assert as_its_run_goes_on(job, run, "mine").rules == 1
    assert as_its_run_goes_on(job, run, "another").rules == RULES
    write_origin(run, Origin("mine", 3, "params/003.safetensors", rules=1))
    assert as_its_run_goes_on(job, run, "mine").rules == 1


@pytest.mark.parametrize("given", ["1", 1.5, True, 0, -1, [1], {}])
def test_a_record_that_is_no_version_is_named_as_damaged(run: RunFolder, given: Any) -> None:
    begin(run, rules=given)
    with pytest.raises(UserError, match=r"config\.json is damaged: rules is"):
        as_its_run_goes_on(Job(**MIXED), run)


def test_a_run_of_a_newer_version_is_not_gone_on_with(run: RunFolder) -> None:
    begin(run, rules=RULES + 1)
    with pytest.raises(UserError, match=f"begun by rules {RULES + 1} of a newer accel-train.*update it"):
        as_its_run_goes_on(Job(**MIXED), run)


def test_a_run_by_rules_that_are_not_kept_is_refused_with_the_reason(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def between(job: Job, before: int, now: int = RULES) -> list[Change]:
        lost = Change(2, "weights are drawn by others' code", lambda job: job.architecture == "cornet_r", is_kept=False)
        return [change for change in (lost,) if before < change.since <= now and change.concerns(job)]

    monkeypatch.setattr(rules, "changes_for", between)
    begin_by_first_rules(run)
    assert as_its_run_goes_on(Job(**MIXED), run).rules == 1
    with pytest.raises(UserError) as refusal:
        as_its_run_goes_on(Job(architecture="cornet_r"), run)
    for part in ("begun by rules 1", "weights are drawn by others' code", "accel-train 0.2", "allow_changes", "-1"):
        assert part in str(refusal.value)
    assert as_its_run_goes_on(Job(architecture="cornet_r", rules=2), run).rules == 2
