import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers import said_by

from accel_trainer.core.errors import UserError
from accel_trainer.report.compare import Comparison, compare, find_parameters, select_parameters, varying_parameters
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import read_performance
from accel_trainer.run.status import RunState, Status, write_status

HEADER = "epoch,split,loss,acc1,acc5,lr,images_per_s,seconds"
TABLE = f"""{HEADER}
1,train,2.5,30,60,0.1,100,10
1,val,2.25,40,70,0.1,300,1
2,train,1.5,50,80,0.1,900,9
2,val,1.0,60,90,0.1,300,1
3,train,1.0,60,90,0.01,110,8
3,val,1.5,60,95,0.01,300,1
"""
CONFIG = {"architecture": "resnet18", "primary_metric": "acc1", "num_epochs": 5}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "a run")
    folder.create()
    folder.config.write_text(json.dumps(CONFIG))
    folder.performance.write_text(TABLE)
    folder.environment.write_text(json.dumps({"job": "a job", "parameters": 17}))
    write_status(folder, Status(state=RunState.TRAINING))
    return folder


def test_a_run_is_summed_up_in_a_row(run: RunFolder) -> None:
    (row,) = compare([run])
    assert (row.job, row.architecture, row.parameters, row.state) == ("a job", "resnet18", 17, "training")
    assert (row.epochs, row.num_epochs) == (3, 5)
    assert row.images_per_s == 110  # the median of training: not the outlier, not the validation
    assert row.seconds == 30


@pytest.mark.parametrize(
    ("metric", "best", "epoch"),
    [
        ("acc1", 60, 2),  # the first of two that are equal
        ("acc5", 95, 3),
        ("CrossEntropyLoss", 1.0, 2),  # the smallest
    ],
)
def test_the_best_is_that_of_the_primary_metric(run: RunFolder, metric: str, best: float, epoch: int) -> None:
    run.config.write_text(json.dumps({**CONFIG, "primary_metric": metric}))
    (row,) = compare([run])
    assert (row.metric, row.best, row.best_epoch) == (metric, best, epoch)


def test_what_is_not_a_number_is_never_best(run: RunFolder) -> None:
    run.performance.write_text(f"{HEADER}\n1,val,nan,nan,nan,1,1,1\n2,val,2.0,30,60,1,1,1\n3,val,nan,nan,nan,1,1,1\n")
    for metric in ("acc1", "CrossEntropyLoss"):
        run.config.write_text(json.dumps({**CONFIG, "primary_metric": metric}))
        assert compare([run])[0].best_epoch == 2


@pytest.mark.parametrize("content", [None, f"{HEADER}\n", ""])
def test_a_run_that_has_only_begun_has_no_best(run: RunFolder, content: str | None) -> None:
    if content is None:
        run.performance.unlink()
    else:
        run.performance.write_text(content)
    run.status_file.unlink()
    run.environment.unlink()
    (row,) = compare([run])
    assert (row.job, row.state, row.parameters) == ("a run", "unknown", None)
    assert (row.best, row.best_epoch, row.images_per_s, row.epochs, row.seconds) == (None, None, None, 0, 0)


def test_runs_come_in_the_order_given(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "another")
    other.create()
    other.config.write_text(json.dumps({**CONFIG, "architecture": "vgg11"}))
    assert [row.architecture for row in compare([other, run, other])] == ["vgg11", "resnet18", "vgg11"]
    assert compare([]) == []


@pytest.mark.parametrize(
    "content",
    [
        "epoch,split\n1,val\n",
        f"{HEADER}\n1,val,0.5\n",
        f"{HEADER}\none,val,1,1,1,1,1,1\n",
        f"{HEADER}\n1,val,good,1,1,1,1,1\n",
        f"{HEADER}\n\xff",
        "x" * 200_000,
    ],
)
def test_a_table_that_cannot_be_read_is_the_users_error(run: RunFolder, content: str) -> None:
    run.performance.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"performance\.csv: cannot be read"):
        read_performance(run)
    with pytest.raises(UserError, match=r"performance\.csv: cannot be read"):
        compare([run])


def test_a_folder_that_is_no_run_is_the_users_error(run: RunFolder, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="is not a run folder"):
            compare([run, RunFolder(folder)])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"primary_metric": "acc1"}'])
def test_a_config_that_is_no_job_is_the_users_error(run: RunFolder, content: str) -> None:
    run.config.write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        compare([run])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_an_environment_that_is_damaged_costs_only_what_was_in_it(run: RunFolder, content: str) -> None:
    run.environment.write_text(content)
    (row,) = compare([run])
    assert (row.job, row.parameters, row.best) == ("a run", None, 60)


def test_numbers_are_read_as_they_stand(run: RunFolder) -> None:
    numbers: dict[str, Any] = vars(read_performance(run)[-1])
    assert list(numbers.values()) == [3, "val", {"loss": 1.5, "acc1": 60, "acc5": 95}, 0.01, 300, 1]
    assert not any(math.isnan(value) for value in numbers.values() if isinstance(value, float))


# -- columns for parameters --------------------------------------------------------------------------------------


def rows(tmp_path: Path, *configs: dict[str, Any]) -> list[Comparison]:
    """Runs with these parameters, beside those that every run has."""
    found = []
    for number, config in enumerate(configs):
        folder = RunFolder(tmp_path / str(number))
        folder.create()
        folder.config.write_text(json.dumps({**CONFIG, **config}))
        found += compare([folder])
    return found


SEARCH: dict[str, Any] = {"wandb": {"group": "search", "tags": []}}


def test_what_differs_in_a_sweep_is_shown(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        {**SEARCH, "seed": 0, "optimizer_args": {"lr": 0.1, "betas": [0.9, 0.95]}, "Noise": None, "dataset": "digits"},
        {**SEARCH, "seed": 0, "optimizer_args": {"lr": 0.2, "betas": [0.9, 0.99]}, "Noise": {"ssnrs": [0.5]}},
        {"wandb": {"group": None}, "seed": 5, "dataset": "digits", "compile": True},
    )
    assert varying_parameters(found) == ["optimizer_args.lr", "optimizer_args.betas", "dataset", "Noise.ssnrs"]


def test_runs_of_different_sweeps_are_not_set_against_each_other(tmp_path: Path) -> None:
    other = {"wandb": {"group": "other"}}
    found = rows(tmp_path, {**SEARCH, "seed": 0}, {**SEARCH, "seed": 1}, {**other, "lr": 1}, {**other, "lr": 2})
    assert varying_parameters(found) == ["seed", "lr"]
    assert varying_parameters(rows(tmp_path, {**SEARCH, "seed": 0}, {**other, "seed": 1})) == []
    assert varying_parameters([]) == []


def test_the_parent_place_and_fixed_settings_of_runs_are_no_columns(tmp_path: Path) -> None:
    changes = [
        {
            "architecture": word,
            "description": word,
            "model_dir": word,
            "primary_metric": word,
            "num_epochs": number,
            "finetune_args": {"finetune_dir": word, "starting_params": "same"},
            "wandb": {"group": "search", "tags": [word], "entity": word},
        }
        for number, word in enumerate("ab")
    ]
    assert varying_parameters(rows(tmp_path, *changes)) == []


def test_columns_are_named_by_the_end_of_their_keys(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        {"optimizer_args": {"lr": 0.1, "momentum": 0}, "Blur": {"probs": [1]}, "seed": 1},
        {"optimizer_args": {"lr": 0.1}, "Noise": {"probs": [1]}, "x_seed": 1},
    )
    assert find_parameters(["lr", "seed", "Noise.probs", "lr"], found) == ["optimizer_args.lr", "seed", "Noise.probs"]
    assert find_parameters(["optimizer_args"], found) == ["optimizer_args.lr", "optimizer_args.momentum"]
    assert "'probs' may be Blur.probs, Noise.probs; give one of them" in said_by(find_parameters, ["probs"], found)
    assert "no run has a parameter 'momentun'; did you mean 'momentum'" in said_by(find_parameters, ["momentun"], found)
    assert "no run has a parameter ''" in said_by(find_parameters, [""], found)


def test_a_row_has_what_is_shown_of_its_parameters(tmp_path: Path) -> None:
    found = rows(tmp_path, {"optimizer_args": {"lr": 0.1}}, {"seed": 2})
    settings = [row.settings for row in select_parameters(["seed", "optimizer_args.lr"], found)]
    assert settings == [{"seed": None, "optimizer_args.lr": 0.1}, {"seed": 2, "optimizer_args.lr": None}]
    assert [list(one) for one in settings] == [["seed", "optimizer_args.lr"]] * 2
