"""Evaluations on Weights & Biases, offline: as wandb's own reader has them."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from tiny_runs import finish
from wandb_files import records_of_wandb

from accel_trainer.api.trained_run import Run
from accel_trainer.evaluation import tracked
from accel_trainer.evaluation.tracked import log_evaluation, log_scores
from accel_trainer.run.evaluations import EvaluationFolder, mean_accuracies, read_accuracies
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import write_config
from accel_trainer.training.wandb_run import replicates

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_plots")]


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Run, EvaluationFolder]:
    """A run whose job logs to wandb, as its config.json has it, and an evaluation of it."""
    run = finish(tmp_path / "run", name="digits")
    folder = RunFolder(run.path)
    write_config(folder, {**run.job.completed(), "trackers": ["wandb"], "wandb": {"mode": "offline"}})
    found = run.evaluate(degradations=[{"name": "noise/gaussian", "levels": ["none", 0.5]}])
    return run, EvaluationFolder(found.path)


def records_below(run: Run) -> list[dict[str, Any]]:
    files = sorted(run.path.glob("wandb/offline-run-*/*.wandb"))
    return [record for file in files for record in records_of_wandb(file)]


@pytest.mark.plots
def test_an_evaluation_is_a_run_in_the_group_of_its_training_once(measured: tuple[Run, EvaluationFolder]) -> None:
    run, folder = measured
    for _ in range(2):
        log_evaluation(RunFolder(run.path), folder)
        time.sleep(max(0.0, 1.01 - (time.time() % 1)))  # wandb names folders by the second
    wandb.teardown()
    records = records_below(run)
    (about,) = [record["run"] for record in records if record["type"] == "run"]
    assert (about["job_type"], about["display_name"]) == ("evaluate", f"digits-{folder.path.name}")
    assert about["run_group"] == replicates(run.job)
    summary = summary_of(records)
    (name, mean), *_ = mean_accuracies(read_accuracies(folder)).items()
    assert summary[f"degraded/{name}"] == pytest.approx(mean)
    (row,) = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert row["evaluation/figures._type"] == "table-file"


def summary_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record["summary"]["update"] if record["type"] == "summary" else {}
    return summary


def test_scores_are_a_run_in_the_group_of_the_training_once_for_each_data_set(
    measured: tuple[Run, EvaluationFolder],
) -> None:
    run, _ = measured
    found = run.evaluate()
    for one in (found, found, replace(found, dataset="/elsewhere/other digits", scores={"acc1": 4.0})):
        log_scores(RunFolder(run.path), one)
        time.sleep(max(0.0, 1.01 - (time.time() % 1)))  # wandb names folders by the second
    wandb.teardown()
    records = records_below(run)
    about = [record["run"] for record in records if record["type"] == "run"]
    assert [(one["job_type"], one["display_name"]) for one in about] == [
        ("evaluate", "digits-digits-best"),
        ("evaluate", "digits-other digits-best"),
    ]
    assert {one["run_group"] for one in about} == {replicates(run.job)}
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    for name, score in found.scores.items():
        assert rows[0][f"val/{name}"] == pytest.approx(score)
    assert (rows[0]["epoch"], rows[1]["other digits/acc1"]) == (found.epoch, 4.0)
    assert summary_of(records)["images"] == found.images


def test_a_run_without_wandb_and_a_wandb_that_fails_log_nothing(
    measured: tuple[Run, EvaluationFolder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, folder = measured

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection lost")

    monkeypatch.setattr(wandb, "init", fail)
    log_evaluation(RunFolder(run.path), folder)
    assert f"the evaluation is not on wandb (Connection lost); {folder.path} has everything" in caplog.text
    write_config(RunFolder(run.path), {**run.job.completed(), "trackers": []})
    monkeypatch.setattr(tracked, "_log", lambda *_: pytest.fail("it is logged"))
    log_evaluation(RunFolder(run.path), folder)
