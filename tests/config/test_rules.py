"""What a job means has a version, and a table says what has changed."""

from typing import Any

import pytest

from accel_trainer.config import Job
from accel_trainer.config.rules import CHANGES, FIRST_RULES, OLD_VERSIONS, RULES, Change, changes_for
from accel_trainer.core.errors import InvalidJob


def job(**given: Any) -> Job:
    """How its images lie in memory is said: left open, that is another thing by each of the rules."""
    return Job(**{"architecture": "resnet18", "channels_last": False, **given})


def test_a_job_has_the_newest_rules_unless_it_says_others() -> None:
    assert job().rules == job(rules=None).rules == RULES
    assert job(rules=1).rules == 1
    assert job().completed()["rules"] == RULES


@pytest.mark.parametrize("rules", [0, RULES + 1, 1.5, "1", True])
def test_rules_that_do_not_exist_are_refused(rules: Any) -> None:
    with pytest.raises(InvalidJob, match="rules"):
        job(rules=rules)


def test_every_change_is_of_a_version_that_exists() -> None:
    assert [change.since for change in CHANGES] == sorted(change.since for change in CHANGES)
    assert all(FIRST_RULES < change.since <= RULES for change in CHANGES)
    assert OLD_VERSIONS.keys() == set(range(FIRST_RULES, RULES))


def test_only_changes_between_two_versions_that_concern_a_job_count() -> None:
    table = [Change(since, f"{since}", lambda job: job.video) for since in (2, 3, 4)]
    clip = job(video=True, num_views=2)
    assert [change.what for change in changes_for(clip, 2, 4, table)] == ["3", "4"]
    assert [change.what for change in changes_for(clip, 4, 3, table)] == ["4"]
    assert not changes_for(clip, 3, 3, table)
    assert not changes_for(job(), 1, 4, table)


MIXING: list[Any] = [True, {}, {"alpha": 0.2}, {"alpha": 0.2, "per": None}]


@pytest.mark.parametrize("key", ["cutmix", "mixup"])
@pytest.mark.parametrize("given", MIXING)
def test_mixtures_were_of_each_image_and_are_of_a_batch(key: str, given: Any) -> None:
    assert getattr(job(**{key: given}), key).per == "batch"
    assert getattr(job(**{key: given}, rules=1), key).per == "image"
    assert getattr(job(**{key: given}).under(1), key).per == "image"
    assert getattr(job(**{key: given}, rules=1).under(2), key).per == "batch"
    assert getattr(job(**{key: {"per": "batch"}}).under(1), key).per == "batch"


@pytest.mark.parametrize("left_open", [{}, {"channels_last": None}])
def test_images_were_stored_as_they_came_unless_a_job_said_otherwise(left_open: dict[str, Any]) -> None:
    given = {"architecture": "resnet18", **left_open}
    new, clips = Job(**given), job(video=True, num_views=4)
    assert (new.channels_last, new.under(2).channels_last, Job(**given, rules=1).channels_last) == (None, False, False)
    assert Job(**given, rules=2).under(3).channels_last is None
    assert [change.what.split()[0] for change in changes_for(new, 2)] == ["on"]
    assert [change.what.split()[0] for change in changes_for(job(channels_last=True), 2)] == ["with"]
    assert changes_for(job(), 2) == changes_for(clips, 2) == []
    assert new.under(2).incompatible_diff({**new.completed(), "channels_last": False, "rules": 2}) == {}


def test_other_rules_leave_all_else_of_a_job_as_it_is() -> None:
    resolved = job(cutmix=True, batch_size="auto", optimizer_args={"lr": "LRfinder"}).resolve(
        {"auto": 8, "LRfinder": 2}
    )
    old = resolved.under(1)
    assert type(old) is type(resolved)
    changed = {name for name, value in old if value != getattr(resolved, name)}
    assert changed == {"cutmix", "rules"}


def test_a_job_file_and_its_completed_form_are_equal() -> None:
    first = job(cutmix=True, rules=1)
    assert Job(**{**first.completed(), "model_dir": None}) == first
    assert job() != job(rules=1)


# -- beside a config.json ---------------------------------------------------------------------------------------------


def config_of(given: Job, **changes: Any) -> dict[str, Any]:
    return {**given.completed(), **changes}


def test_a_job_that_means_the_same_by_both_rules_does_not_differ() -> None:
    assert job().incompatible_diff(config_of(job(rules=1))) == {}
    assert job(rules=1).incompatible_diff(config_of(job())) == {}


def test_a_job_that_means_something_else_by_other_rules_differs() -> None:
    mixed = job(cutmix={"per": "batch"})
    assert mixed.incompatible_diff(config_of(mixed, rules=1)) == {"rules": (1, RULES)}


def test_what_an_old_config_leaves_open_has_its_own_defaults() -> None:
    old = config_of(job(cutmix=True, rules=1), cutmix={"alpha": 1.0}, wandb={"project": "accel-train"})
    assert job(cutmix=True).under(1).diff(old) == {}
    assert job(cutmix={"per": "image"}).incompatible_diff(old) == {}
    assert list(job(cutmix=True).incompatible_diff(old)) == ["cutmix", "rules"]


def test_a_config_with_rules_of_no_kind_differs_and_breaks_nothing() -> None:
    assert list(job().incompatible_diff(config_of(job(), rules="old"))) == ["rules"]


SGD_DEFAULTS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}


@pytest.mark.parametrize(
    ("given", "by_new", "by_old"),
    [
        ({"lr": 0.1}, {**SGD_DEFAULTS, "lr": 0.1}, {"lr": 0.1, "momentum": 0, "weight_decay": 0}),
        ({}, SGD_DEFAULTS, {"lr": 0.001, "momentum": 0, "weight_decay": 0}),
        ({"momentum": 0, "nesterov": False}, {**SGD_DEFAULTS, "momentum": 0, "nesterov": False}, None),
        ({"lr": None, "weight_decay": None}, SGD_DEFAULTS, None),
        (None, SGD_DEFAULTS, SGD_DEFAULTS),
        (SGD_DEFAULTS, SGD_DEFAULTS, SGD_DEFAULTS),
        ({"lr": "LRfinder"}, {**SGD_DEFAULTS, "lr": "LRfinder"}, {"lr": "LRfinder", "momentum": 0, "weight_decay": 0}),
    ],
)
@pytest.mark.parametrize("named", [{}, {"optimizer": "SGD"}])
def test_part_of_sgds_arguments_keeps_the_default_of_the_rest(
    given: Any, by_new: dict[str, Any], by_old: dict[str, Any] | None, named: dict[str, Any]
) -> None:
    new = job(optimizer_args=given, **named)
    assert new.optimizer_args == by_new
    assert Job(**new.completed()).optimizer_args == by_new
    if by_old is not None:
        old = job(optimizer_args=given, **named, rules=1)
        assert old.optimizer_args == by_old
        assert new.under(1).optimizer_args == by_old
        assert old.under(2).optimizer_args == by_new


def test_other_optimizers_have_torchs_defaults_where_nothing_is_said() -> None:
    assert job(optimizer="AdamW", optimizer_args={"lr": 0.1}).optimizer_args == {"lr": 0.1}
    assert job(optimizer="AdamW").optimizer_args == {}


def test_a_run_with_a_part_of_sgds_arguments_goes_on_without_momentum() -> None:
    """Its config.json has what its file said, and no rules."""
    config = {**job(optimizer_args={"lr": 0.1}, rules=1).completed(), "optimizer_args": {"lr": 0.1}, "rules": 1}
    now = job(optimizer_args={"lr": 0.1})
    assert now.under(1).incompatible_diff(config) == {}
    assert list(now.incompatible_diff(config)) == ["optimizer_args"]
    (change,) = changes_for(now.under(1), 1, RULES)
    assert "optimizer_args of SGD" in change.what
    assert changes_for(job(rules=1), 1, RULES) == []
