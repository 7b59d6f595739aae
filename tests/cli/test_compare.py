"""`accel-train compare`: what is chosen, put together and printed."""

import csv
import io
import itertools
import json
import random
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from accel_trainer.cli import app
from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, write_status

HEADER = "epoch,split,loss,acc1,acc5,lr,images_per_s,seconds"


def compare(*words: str) -> Result:
    result = CliRunner().invoke(app, ["compare", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def problem(*words: str) -> list[str]:
    error = CliRunner().invoke(app, ["compare", *words]).exception
    assert isinstance(error, UserError)
    return error.problems


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for architecture, gain in (("resnet18", 3), ("vgg11", 0)):
        for seed in (0, 1, 2):
            job = Job(architecture=architecture, name=f"{architecture}-{seed}", seed=seed, num_epochs=2)
            run = RunFolder(job.run_path)
            run.create()
            run.config.write_text(json.dumps({**job.completed(), "primary_metric": "acc1"}))
            best = 80 + gain + seed
            lines = (f"1,train,1.5,{best - 5},95,0.1,100,9", f"1,val,1.25,{best},90,0.1,300,1")
            later = (f"2,train,0.5,{best},96,0.1,100,9", f"2,val,0.0625,{best - 1},91,0.1,300,1")
            run.performance.write_text("\n".join((HEADER, *lines, *later)) + "\n")
            run.environment.write_text(json.dumps({"job": job.name, "parameters": 5}))
            write_status(run, Status(state=RunState.FINISHED))


def test_metrics_are_those_of_the_best_epoch_the_final_one_or_another() -> None:
    for at, acc5, loss in (("best", 90.0, 1.5), ("final", 91.0, 0.5), ("2", 91.0, 0.5)):
        rows = json.loads(compare("models", "--metric", "acc5, train/loss", "--at", at, "--json").stdout)
        assert [row["values"] for row in rows] == [{"acc5": acc5, "train/loss": loss}] * 6
    assert problem("models", "--metric", "acc6") == [
        "`metric`: no run has measured 'acc6'; did you mean 'acc5' or 'acc1'?"
    ]
    assert problem("models", "--at", "last") == ["`at`: 'last' is neither best, final nor the number of an epoch"]


def test_a_table_is_chosen_and_sorted() -> None:
    lines = compare("models", "--where", "seed>0", "--where", "job~*18*", "--sort", "-seed").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["job", "resnet18-2", "resnet18-1"]
    result = compare("models", "--where", "seed>7")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "none of the 6 runs fits seed>7\n")
    assert json.loads(compare("models", "--where", "seed>7", "--json").stdout) == []


def test_groups_are_means_with_their_intervals() -> None:
    result = compare("models", "--group-by", "architecture")
    assert result.stdout.splitlines() == [
        "architecture  n   best    sd    low   high",
        "resnet18      3  84.00  1.00  81.52  86.48",  # 84 -+ 4.302653 / sqrt(3)
        "vgg11         3  81.00  1.00  78.52  83.48",
    ]
    assert result.stderr == ""
    (first, _) = json.loads(compare("models", "--group-by", "all-but-seed", "--metric", "loss", "--json").stdout)
    assert first["group"] == {"architecture": "resnet18"}
    assert first["jobs"] == ["resnet18-0", "resnet18-1", "resnet18-2"]
    assert first["metrics"]["loss"] == {"n": 3, "mean": 1.25, "sd": 0.0, "low": 1.25, "high": 1.25}


def test_two_groups_are_compared() -> None:
    (row,) = json.loads(compare("models", "--group-by", "architecture", "--against", "vgg11", "--json").stdout)
    assert (row["difference"], row["test"]) == (3.0, "paired by seed, n = 3")
    lines = compare("models", "--group-by", "architecture", "--against", "resnet18").stdout.splitlines()
    assert lines[1].split()[:4] == ["vgg11", "resnet18", "best", "-3.00"]
    assert problem("models", "--against", "vgg11") == ["`against`: compares groups; give `group_by` too"]
    assert problem("models", "--group-by", "architecture", "--against", "vgg") == [
        "`against`: no group 'vgg'; did you mean 'vgg11'?"
    ]


def test_what_a_mean_hides_is_said() -> None:
    run = RunFolder(Path("models/vgg11/vgg11-2"))
    write_status(run, Status(state=RunState.DIVERGED))
    run.performance.write_text(HEADER + "\n")
    assert compare("models", "--group-by", "architecture").stderr.splitlines() == [
        "warning: not finished: vgg11-2; --where state=finished leaves them out",
        "warning: without best, and left out: vgg11-2",
    ]
    mixed = compare("models", "--group-by", "state").stderr.splitlines()
    assert mixed[0].startswith("warning: finished: its runs differ in ")


def test_what_differs_has_a_column_for_each_run() -> None:
    lines = compare("models/resnet18/resnet18-1", "models/vgg11/vgg11-2", "--diff").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["parameter", "resnet18-1", "vgg11-2"],
        ["architecture", "resnet18", "vgg11"],
        ["seed", "1", "2"],
    ]
    assert compare("models/vgg11/vgg11-1", "--diff").stderr == "no parameter differs among 1 run\n"


def test_other_programs_get_all_digits_and_whole_names() -> None:
    text = compare("models", "--format", "csv", "--columns", "lr", "--where", "seed=0").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["job"], row["optimizer_args.lr"], row["time"]) for row in rows] == [
        (f"{name}-0", "0.05", "20.0") for name in ("resnet18", "vgg11")
    ]
    assert r"\toprule" in compare("models", "--format", "latex").stdout
    assert compare("models", "--format", "markdown").stdout.startswith("| job | architecture |")
    assert problem("models", "--format", "html5") == [
        "`format`: 'html5' is no format; there are: table, csv, json, markdown, latex"
    ]


def test_a_run_is_there_once_and_one_that_never_began_too() -> None:
    never = RunFolder(Path("models/resnet18/broken"))
    never.create()
    never.log.write_text("no module named anything")
    result = compare("models", "models/vgg11/vgg11-0", "--json")
    rows = json.loads(result.stdout)
    assert (result.exit_code, len(rows)) == (0, 7)
    (row,) = [row for row in rows if row["job"] == "broken"]
    assert (row["state"], row["best"], row["architecture"]) == ("failed", None, None)
    assert compare("models/resnet18/broken").exit_code == 0


def test_groups_of_a_whole_design_are_those_of_pandas() -> None:
    """Two architectures, with and without occlusion, three seeds: as read from the files of the runs."""
    numbers = random.Random(4)
    for architecture, visibility, seed in itertools.product(("cornet_z", "small_cnn"), (100, 40), (0, 1, 2)):
        occlusion = {"occluder_dir": "occluders", "form": "mudSplash", "visibility": visibility}
        job = Job(
            architecture=architecture, name=f"{architecture}-{visibility}-{seed}", seed=seed, num_epochs=3,
            Occlusion=occlusion, model_dir=f"design/{architecture}-{visibility}-{seed}",
        )  # fmt: skip
        run = RunFolder(job.run_path)
        run.create()
        run.config.write_text(json.dumps({**job.completed(), "primary_metric": "acc1"}))
        run.environment.write_text(json.dumps({"job": job.name}))
        write_status(run, Status(state=RunState.FINISHED))
        rows = [
            f"{epoch},{split},{numbers.random()},{numbers.uniform(50, 99)},99,0.1,100,1"
            for epoch in (1, 2, 3)
            for split in ("train", "val")
        ]
        run.performance.write_text("\n".join((HEADER, *rows)) + "\n")
    frames = []
    for path in Path("design").rglob("performance.csv"):
        config = json.loads(path.with_name("config.json").read_text())
        about = {"architecture": config["architecture"], "visibility": json.dumps(config["Occlusion"]["visibility"])}
        frames.append(pd.read_csv(path).assign(**about, run=str(path)))
    rows_of_all = pd.concat(frames)
    best = rows_of_all[rows_of_all.split == "val"].sort_values("acc1").groupby("run").tail(1)
    assert best.shape[0] == 12
    theirs = best.groupby(["architecture", "visibility"])[["acc1", "loss"]].agg(["count", "mean", "std"])
    result = compare("design", "--group-by", "architecture,visibility", "--metric", "acc1,loss", "--format", "csv")
    assert result.stderr == ""
    own = pd.read_csv(io.StringIO(result.stdout), index_col=[0, 1])
    assert len(own) == len(theirs) == 4
    for (architecture, visibility), row in own.iterrows():
        for metric in ("acc1", "loss"):
            expected = theirs.loc[(architecture, visibility), metric]
            found = row[[f"{metric} n", f"{metric} mean", f"{metric} sd"]]
            assert found.to_list() == pytest.approx(expected.to_list(), rel=1e-9)
