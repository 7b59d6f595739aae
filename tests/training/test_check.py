"""Checks of jobs without training them: all mistakes at once, and what jobs have in common looked at once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.training import check as checking
from accel_trainer.training.check import JobChecker

MakeJob = Callable[..., Job]


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Job]:
    """The jobs that a function of the checker is called with, from now on."""
    jobs: list[Job] = []
    function = getattr(checking, name)
    monkeypatch.setattr(checking, name, lambda job, *args: jobs.append(job) or function(job, *args))
    return jobs


def mistakes(job: Job) -> list[str]:
    with pytest.raises(UserError) as caught:
        JobChecker()(job, world_size=1)
    return caught.value.problems


def test_jobs_on_one_data_set_look_through_it_once(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, check = counted(monkeypatch, "open_images"), JobChecker()
    for given in ({}, {"seed": 1}, {"class_subset": [1, 2]}, {"class_subset": [1, 2], "num_epochs": 3}):
        check(make_job(**given), world_size=1)
    assert [job.class_subset for job in opened] == [None, [1, 2]]


def test_jobs_with_one_model_build_it_once(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    built, check = counted(monkeypatch, "meta_model"), JobChecker()
    for seed in range(20):
        check(make_job(seed=seed, optimizer_args={"lr": 0.1 / (1 + seed % 3)}), world_size=1)
    assert len(built) == 1
    check(make_job(class_subset=[0, 1]), world_size=1)
    check(make_job(image_size=48), world_size=1)
    assert len(built) == 3


def test_what_one_job_shares_with_another_changes_nothing_that_is_found(make_job: MakeJob, tmp_path: Any) -> None:
    """In whatever order: frozen modules of one job are not those of the next, and its mistakes are its own."""
    given: list[dict[str, Any]] = [
        {},
        {"finetune": True, "after": ["parent"], "finetune_args": {"freeze_modules": ["features"]}},
        {"finetune": True, "after": ["parent"], "finetune_args": {"freeze_modules": ["features", "classifier"]}},
        {"optimizer": "SDG"},
        {"optimizer": "Adam", "optimizer_args": {"momentum": 0.9}},
        {"loss_cycle": 3},
        {"scheduler": "StepLR", "scheduler_args": {"step": 3}},
        {"num_epochs": 3},
        {},
    ]
    shared = JobChecker()

    def verdict(check: JobChecker, job: Job) -> object:
        try:
            return replace(check(job, world_size=1), name="any")
        except UserError as error:
            return error.problems

    for index, changes in enumerate([*given, *reversed(given)]):
        job = make_job(name=f"job-{index}", model_dir=str(tmp_path / "runs"), **changes)
        assert verdict(shared, job) == verdict(JobChecker(), job), changes


def test_all_mistakes_that_do_not_follow_from_each_other_are_found_at_once(make_job: MakeJob) -> None:
    lines = mistakes(
        make_job(
            architecture="resnet5",
            dataset="digts",
            optimizer="SDG",
            optimizer_args={"lr": 0.1},
            scheduler="StepLr",
            criterion="CrossEntropyLos",
            trackers=["wandbb"],
        )
    )
    heads = [line.partition(":")[0] for line in lines]
    assert heads == ["dataset", "architecture", "criterion", "optimizer", "scheduler", "trackers"], lines
    assert all("did you mean" in line for line in lines), lines


def test_an_unknown_architecture_is_told_of_timm_and_of_import_paths(make_job: MakeJob) -> None:
    (line,) = mistakes(make_job(architecture="convnextv2_tiny"))
    assert "did you mean" in line
    assert "'timm:convnextv2_tiny'" in line
    assert "models of your own are named by import path, such as my_lab.models:Net" in line
    (line,) = mistakes(make_job(architecture="zzzzzzzz"))
    assert "import path" in line


def test_a_batch_that_is_too_large_hides_no_other_mistake(make_job: MakeJob) -> None:
    lines = mistakes(make_job(batch_size=100_000, optimizer_args={"lr": 0.1, "momentun": 0.9}))
    assert [line.partition(":")[0] for line in lines] == ["batch_size", "optimizer_args.momentun"]


def test_a_run_that_is_there_is_looked_at_by_its_own_rules(make_job: MakeJob, tmp_path: Path) -> None:
    """By the first ones a cycle could be longer than the training."""
    long_cycle = {"scheduler": "OneCycleLR", "scheduler_args": {"max_lr": 0.1, "total_steps": 9}, "num_epochs": 2}
    job = make_job(model_dir=str(tmp_path / "run"), **long_cycle)
    assert "total_steps" in "".join(mistakes(job))
    run = RunFolder(job.run_path)
    run.create()
    begun = {key: value for key, value in job.completed().items() if key != "rules"}
    run.config.write_text(json.dumps(begun))
    JobChecker()(job, world_size=1)
    run.config.write_text(json.dumps({**begun, "rules": 99}))
    assert "a newer accel-train" in "".join(mistakes(job))
