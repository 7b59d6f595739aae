"""`accel-train sweep`, and what `compare` makes of the runs of one."""

import json
import os
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from helpers import file_names, write_job
from typer.testing import CliRunner, Result

from accel_trainer.api.verdicts import check_job, checked_alike
from accel_trainer.cli import app
from accel_trainer.cli import sweep as sweep_module
from accel_trainer.cli.app import with_flags
from accel_trainer.config import Job, read_job
from accel_trainer.config.known import ONLY_TO_DOUBT
from accel_trainer.core.errors import UserError
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder

SEEDS = ("--set", "seed=0,1")


@pytest.fixture
def base() -> Path:
    return write_job(Path("base.json"))


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that are looked at as a whole, by a check that needs no torch and refuses rates above 1."""
    seen: list[str] = []

    def check(job: Job) -> dict[str, Any]:
        seen.append(job.name)
        if job.optimizer_args["lr"] > 1:
            raise UserError("optimizer_args: too fast")
        return {
            "classes": 10,
            "train_images": 1000,
            "steps_per_epoch": 100,
            "cycles": 1,
            **dict.fromkeys(ONLY_TO_DOUBT),
        }

    def check_here(job: Job, queue: Path, options: LaunchOptions, coming: Collection[str]) -> dict[str, Any]:
        return check_job(job, check, QueueStore(queue), coming)

    monkeypatch.setattr(sweep_module, "check_apart", check_here)
    return seen


pytestmark = pytest.mark.usefixtures("base")


def sweep(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["sweep", "base.json", *map(str, words)])


def refused(*words: str | Path) -> str:
    """The one line of a mistake, before which nothing was written."""
    before = file_names(Path())
    error = sweep(*words).exception
    assert isinstance(error, UserError)
    assert file_names(Path()) == before
    (line,) = error.problems
    return with_flags(line)


# -- whole, with torch -------------------------------------------------------------------------------------------


def test_a_sweep_is_checked_as_add_does_and_all_or_nothing_is_written(cli):
    result = cli("sweep", "base.json", "--set", "optimizer_args.lr=0.1,-1", *SEEDS)
    assert result.returncode == 2
    assert result.stderr == (
        "error: base.json with optimizer_args.lr=-1, seed=0 (and 1 more): "
        "optimizer_args: AdamW: Invalid learning rate: -1\n"
    )
    assert file_names(Path()) == ["base.json"]

    result = cli("sweep", "base.json", "--set", "optimizer_args.lr=0.02,0.01", *SEEDS)
    assert (result.returncode, result.stderr) == (0, "")
    told, following = result.stdout.splitlines()
    assert told == "wrote 4 job files to base: base-lr0.02-seed0 ... base-lr0.01-seed1"
    # The command to go on with does so.
    words = shlex.split(following.removeprefix("next: accel-train "))
    files = sorted(Path().glob(words.pop()))
    assert len(files) == 4
    assert cli(*words, *files).returncode == 0
    assert len(QueueStore(Path("training_queue")).jobs(JobState.PENDING)) == 4


def test_mistakes_of_fields_and_of_whole_jobs_are_in_one_list(checked):
    result = sweep("--set", "seed=0,-1", "--set", "optimizer_args.lr=0.01,2")
    assert isinstance(result.exception, UserError)
    assert result.exception.problems == [
        "base.json with seed=-1, optimizer_args.lr=0.01 (and 1 more): seed: -1 is not allowed: "
        "it should be greater than or equal to 0",
        "base.json with seed=0, optimizer_args.lr=2 (and 1 more): optimizer_args: too fast",
    ]
    assert file_names(Path()) == ["base.json"]


# -- folders -----------------------------------------------------------------------------------------------------


def test_the_files_are_the_jobs_and_nothing_else_is_written(checked):
    assert sweep("--set", "optimizer_args.lr=0.1,0.01", *SEEDS, "--name", "search").exit_code == 0
    names = [f"search-lr{lr}-seed{seed}" for lr in (0.01, 0.1) for seed in (0, 1)]
    assert file_names(Path()) == ["base.json", *(f"search/{name}.json" for name in names)]
    job = read_job(Path("search/search-lr0.01-seed1.json"))
    assert (job.optimizer_args, job.seed, job.wandb.group) == ({"lr": 0.01}, 1, "search")


def test_jobs_that_are_alike_to_a_check_are_checked_once(checked):
    assert sweep("--set", "optimizer_args.lr=0.1,0.01", *SEEDS, "--dry-run").exit_code == 0
    assert checked == ["base-lr0.1-seed0", "base-lr0.01-seed0"]


@pytest.mark.parametrize(
    ("one", "other", "is_alike"),
    [
        ({"seed": 1}, {"seed": 2, "description": "x", "wandb": {"group": "g"}}, True),
        ({"model_dir": "a/one"}, {"model_dir": "a/other"}, True),
        ({"model_dir": "a/one"}, {"model_dir": "b/other"}, False),
        ({"trackers": []}, {"trackers": ["wandb"]}, False),
        ({"optimizer_args": {"lr": 1}}, {"optimizer_args": {"lr": 2}}, False),
    ],
)
def test_what_a_check_does_not_look_at(one: dict[str, Any], other: dict[str, Any], is_alike: bool) -> None:
    first, second = (
        Job(architecture="resnet18", name=name, **given) for name, given in (("one", one), ("other", other))
    )
    assert (checked_alike(first) == checked_alike(second)) is is_alike


def test_fine_tuned_jobs_with_other_parents_are_not_alike():
    def tuned(name: str, parent: str, start: str | None = None) -> Job:
        Path(parent, "params").mkdir(parents=True, exist_ok=True)
        args = {"finetune_dir": f"finetune/{name}", "starting_params": start}
        return Job(architecture="resnet18", name=name, model_dir=parent, finetune=True, finetune_args=args)

    assert checked_alike(tuned("a", "parent")) == checked_alike(tuned("b", "parent"))
    assert checked_alike(tuned("a", "parent")) != checked_alike(tuned("b", "other"))
    assert checked_alike(tuned("a", "parent", "x/y")) != checked_alike(tuned("b", "parent", "x/z"))


def test_what_is_doubted_is_said_once_with_the_number_of_jobs(checked):
    done = sweep(*SEEDS, "--set", "save_interval=1,500", "--set", "knn_interval=0,600", "--dry-run")
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.partition(": every ")[0] for line in warnings] == [
        "warning: base.json with seed=0, save_interval=1, knn_interval=600 (and 3 more): knn_interval",
        "warning: base.json with seed=0, save_interval=500, knn_interval=0 (and 3 more): save_interval",
    ]
    assert done.exit_code == 0


def test_the_same_command_again_changes_nothing(checked):
    assert sweep(*SEEDS).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("base").iterdir()}
    again = sweep(*SEEDS)
    assert again.stdout.startswith("2 job files are in base already\n")
    assert {path: path.stat().st_mtime_ns for path in Path("base").iterdir()} == before
    more = sweep("--set", "seed=0,1,2")
    assert more.stdout.startswith("wrote 1 job file to base (2 more exist already): base-seed2\n")


@pytest.mark.parametrize("kind", ["job", "folder", "link", "pipe"])
def test_another_file_of_the_name_is_left_alone(checked, kind):
    path = Path("base/base-seed1.json")
    path.parent.mkdir()
    match kind:
        case "job":
            path.write_text("{}")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)
    assert refused(*SEEDS) == (
        "base/base-seed1.json: exists already with other content; choose another --name, or use --force"
    )
    if kind != "folder":
        assert sweep(*SEEDS, "--force").exit_code == 0
        assert read_job(path).seed == 1


def test_a_changed_base_is_reported_once_for_all_files(checked):
    sweep(*SEEDS)
    write_job(Path("base.json"), num_epochs=7)
    assert refused(*SEEDS).startswith("base/base-seed0.json and 1 more: exists already")
    assert sweep(*SEEDS, "--force").stdout.startswith("wrote 2 job files to base: ")
    assert read_job(Path("base/base-seed0.json")).num_epochs == 7


def test_an_unwritable_output_folder_of_a_sweep_is_reported(checked):
    Path("base").write_text("a file")
    assert "base: base-seed0 cannot be written: " in refused(*SEEDS)


def test_a_folder_may_have_any_name(checked):
    result = sweep(*SEEDS, "--out", "my folder/of 'jobs'", "--queue", "my queue")
    assert file_names(Path("my folder/of 'jobs'")) == ["base-seed0.json", "base-seed1.json"]
    following = result.stdout.splitlines()[1]
    assert shlex.split(following)[1:] == [
        "accel-train",
        "add",
        "--queue",
        "my queue",
        "my folder/of 'jobs'/base-*.json",
    ]


# -- queues ------------------------------------------------------------------------------------------------------


def test_jobs_go_straight_into_the_queue(checked):
    result = sweep(*SEEDS, "--add", "--queue", "q")
    assert result.stdout == "added 2 jobs to q: base-seed0 ... base-seed1\nnext: accel-train run-queue --queue q\n"
    assert [job.name for job in QueueStore(Path("q")).jobs(JobState.PENDING)] == ["base-seed0", "base-seed1"]
    assert not Path("base").exists()


def test_a_job_that_is_anywhere_in_the_queue_is_not_added_again(checked):
    queue = QueueStore(Path("training_queue"))
    sweep("--set", "seed=0,1,2,3,4", "--add")
    pending, running, held, done, failed = queue.jobs(JobState.PENDING)
    queue.claim(running)
    held.path.rename(queue.paths.of(JobState.HELD) / held.path.name)
    queue.finish(done, JobState.DONE)
    queue.finish(failed, JobState.FAILED, "diverged")
    before = file_names(queue.folder)
    assert sweep("--set", "seed=0,1,2,3,4", "--add").stdout.startswith("5 jobs are in training_queue already\n")
    assert file_names(queue.folder) == before
    result = sweep("--set", "seed=0,1,2,3,4", "--add", "--force")
    assert result.stdout.startswith("added 2 jobs to training_queue (3 more exist already): base-seed3 ... base-s")
    assert [job.name for job in queue.jobs(JobState.PENDING)] == [pending.name, done.name, failed.name]


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.DONE, JobState.FAILED])
def test_another_job_of_the_name_is_not_replaced(checked, state):
    queue = QueueStore(Path("training_queue"))
    sweep("--set", "seed=1", "--add")
    (job,) = queue.jobs(JobState.PENDING)
    if state is not JobState.PENDING:
        queue.finish(job, state, "a reason")
    write_job(Path("base.json"), num_epochs=7)
    place = queue.paths.of(state) / "base-seed1.json"
    assert refused(*SEEDS, "--add").startswith(f"{place}: exists already with other content")
    assert sweep(*SEEDS, "--add", "--force").exit_code == 0
    assert read_job(queue.folder / "base-seed1.json").num_epochs == 7


# -- what is said, and refused -----------------------------------------------------------------------------------


def test_a_dry_run_is_a_table_and_writes_nothing(checked):
    result = sweep("--set", "optimizer_args.lr=0.1,0.01", "--set", "swa=null", "--dry-run", "--add")
    assert result.stdout.splitlines() == [
        "job                   lr    swa",
        "base-lr0.1-swa_null   0.1   null",
        "base-lr0.01-swa_null  0.01  null",
        "",
        "2 jobs; nothing was written",
    ]
    assert file_names(Path()) == ["base.json"]
    assert refused("--set", "optimizer_args.lr=2", "--dry-run") == (
        "base.json with optimizer_args.lr=2: optimizer_args: too fast"
    )


def test_json_output_of_a_sweep_has_names_values_and_files(checked):
    dry = json.loads(sweep(*SEEDS, "--json", "--dry-run").stdout)
    assert dry == [{"job": f"base-seed{seed}", "settings": {"seed": seed}, "file": None} for seed in (0, 1)]
    for _ in range(2):
        rows = json.loads(sweep(*SEEDS, "--json").stdout)
        assert rows == [{**row, "file": f"base/{row['job']}.json"} for row in dry]


def test_draws_are_the_same_again_and_others_with_another_seed(checked):
    words = ("--set", "optimizer_args.lr=log:1e-4:1e-1", "--dry-run", "--json", "--random", "3")
    first = sweep(*words).stdout
    assert len(json.loads(first)) == 3
    assert sweep(*words, "--sweep-seed", "0").stdout == first
    assert sweep(*words, "--sweep-seed", "1").stdout != first


def test_more_draws_than_combinations_give_all_of_them_and_a_notice(checked):
    result = sweep(*SEEDS, "--random", "5")
    assert "--random 5: there are only 2 combinations; these are all" in result.stderr
    assert "wrote 2 job files" in result.stdout
    assert "there are only" not in sweep(*SEEDS, "--random", "2").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "seed=0,1", "--sweep-seed", "3"], "--sweep-seed: nothing is drawn without --random N"),
        (["--set", "seed=0", "--add", "--out", "x"], "--out: with --add the jobs go into the queue"),
        (["--set", "seed=0", "--name", "a/b"], "--name: 'a/b' begins the names of job files"),
        (
            ["--set", "seed=int:0:9"],
            "--set seed: int:0:9 is a range to draw from; give the number of draws with --random",
        ),
        (["--set", "seed=0,1", "--random", "1001"], "--random: 1,001 are too many: a sweep may have 1,000 jobs"),
        (["--set", "seed=x"], 'base.json with seed=x: seed: "x" is not allowed'),
    ],
)
def test_contradictory_sweep_options_are_reported_before_anything_is_written(checked, words, said):
    assert refused(*words).startswith(said)


def test_a_base_that_is_no_job_file_is_reported(checked):
    Path("base.json").write_text("{")
    assert refused(*SEEDS).startswith("base.json: line 1, column 2: ")
    Path("base.json").unlink()
    assert refused(*SEEDS) == "base.json: cannot be read: No such file or directory"


def test_a_sweep_starts_only_from_a_parent_that_is_in_the_queue(checked):
    words = ("--set", "finetune=true", "--set", "finetune_args.starting_params=parent", *SEEDS)
    assert "'parent' is neither a path nor a job of the queue" in refused(*words)
    QueueStore(Path("q")).create()
    write_job(Path("q/parent.json"))
    assert sweep(*words, "--queue", "q").exit_code == 0


# -- the runs of a sweep -----------------------------------------------------------------------------------------


def trained(job: Job) -> Path:
    """A run folder as of a job that has begun."""
    run = RunFolder(job.run_path)
    run.create()
    run.config.write_text(json.dumps(job.completed()))
    return run.path


def compared(*words: str | Path) -> list[list[str]]:
    result = CliRunner().invoke(app, ["compare", *map(str, words)])
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def test_compare_shows_what_differs_in_a_sweep(checked):
    sweep("--set", "optimizer_args.lr=0.001,1e-5", *SEEDS)
    runs = [trained(read_job(path)) for path in sorted(Path("base").iterdir())]
    header, *rows = compared(*runs)
    assert header[:5] == ["job", "architecture", "lr", "seed", "parameters"]
    assert [row[2:4] for row in rows] == [["0.001", "0"], ["0.001", "1"], ["1e-05", "0"], ["1e-05", "1"]]
    # Others beside them have the columns too, but add none.
    other = trained(Job(architecture="vgg11", name="other", seed=7))
    header, *rows = compared(runs[0], runs[1], other)
    assert header[:4] == ["job", "architecture", "seed", "parameters"]
    assert rows[-1][2] == "7"
    header, *rows = compared(*runs, "--columns", "image_size, num_views,lr")
    assert header[:6] == ["job", "architecture", "image_size", "num_views", "lr", "parameters"]


def test_json_output_of_compare_has_the_parameters_that_differ(checked):
    sweep("--set", "optimizer_args.lr=0.001,1e-5")
    runs = [trained(read_job(path)) for path in sorted(Path("base").iterdir())]
    rows = json.loads(CliRunner().invoke(app, ["compare", "--json", *map(str, runs)]).stdout)
    assert [row["settings"] for row in rows] == [{"optimizer_args.lr": 0.001}, {"optimizer_args.lr": 1e-5}]


def test_compare_refuses_a_column_that_is_none():
    run = trained(Job(architecture="vgg11", name="other"))
    error = CliRunner().invoke(app, ["compare", str(run), "--columns", "priorty"]).exception
    assert isinstance(error, UserError)
    assert error.problems == ["`columns`: no run has a parameter 'priorty'; did you mean 'priority'?"]


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked", "unplotted")
def test_a_sweep_is_made_trained_and_compared(cli):
    """As in the README, with the command lines that the verbs tell."""
    write_job(Path("base.json"), architecture="small_cnn", architecture_args={"features": [8, 8, 8]})
    result = cli("sweep", "base.json", "--set", "num_epochs=1", *SEEDS, "--add")
    assert result.returncode == 0, result.stderr
    run = shlex.split(result.stdout.splitlines()[-1].removeprefix("next: "))
    assert run[0] == "accel-train"
    assert cli(*run[1:]).returncode == 0
    runs = sorted(Path("models/small_cnn").iterdir())
    rows = json.loads(cli("compare", "--json", *runs).stdout)
    assert [(row["job"], row["state"], row["settings"]) for row in rows] == [
        (f"base-num_epochs1-seed{seed}", "finished", {"seed": seed}) for seed in (0, 1)
    ]
    assert rows[0]["best"] != rows[1]["best"]
