"""Every verb, and every mistake a user can make on the way: one clear line and exit code 2."""

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import QUICK_JOB, REPOSITORY, trainers_in, wait_until, write_job

from accel_trainer.cli import job_files, run_queue, train
from accel_trainer.cli.app import write_file
from accel_trainer.core.errors import UserError
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.nvidia import Gpu
from accel_trainer.launch.outcome import Outcome, OutcomeKind


def one_line(result: subprocess.CompletedProcess[str], exit_code: int = 2) -> str:
    """The one line of an error."""
    assert result.returncode == exit_code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_the_command_line_does_not_import_torch():
    """Nor the other libraries that take seconds: `status` must answer at once."""
    code = "import accel_trainer.cli, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "torchvision", "accelerate", "datasets", "wandb", "matplotlib", "numpy", "rich.progress"}
    assert not heavy & set(modules)


def test_rooms_import_only_what_they_may():
    """The rooms of the house, and what each must not know."""
    forbidden = {
        "config": ("accel_trainer.queue", "accel_trainer.training", "accel_trainer.data", "torch"),
        "queue": ("accel_trainer.training", "accel_trainer.data", "accel_trainer.zoo", "accel_trainer.report", "torch"),
        "zoo": ("accel_trainer.config", "accel_trainer.data", "accel_trainer.run.folder", "accel_trainer.queue"),
        "data": ("accel_trainer.training", "accel_trainer.run.folder", "accel_trainer.queue", "accel_trainer.zoo"),
        "training": ("accel_trainer.queue", "accel_trainer.cli", "accel_trainer.report"),
        "evaluation": ("accel_trainer.queue", "accel_trainer.cli"),
        "profiling": ("accel_trainer.queue", "accel_trainer.cli", "accel_trainer.report"),
        "report": ("accel_trainer.queue", "accel_trainer.training", "torch"),
        "doctor": ("accel_trainer.cli", "accel_trainer.zoo", "accel_trainer.report", "accel_trainer.evaluation"),
    }
    for room, names in forbidden.items():
        for path in (REPOSITORY / "accel_trainer" / room).rglob("*.py"):
            lines = [line.strip() for line in path.read_text().splitlines()]
            for line in lines:
                words = line.split()
                if len(words) > 1 and words[0] in ("import", "from"):
                    assert not words[1].startswith(names), f"{path}: {line}"


def test_validate_prints_a_summary_of_each_valid_job(cli):
    job = write_job(Path("job.json"))
    result = cli("validate", job)
    assert result.returncode == 0
    assert "727,626 parameters, 10 classes, 1,347 training images, 21 steps per epoch" in result.stdout


def test_validate_refuses_two_jobs_in_one_run_folder(cli):
    write_job(Path("a.json"), model_dir="models/same")
    write_job(Path("b.json"), model_dir="./models//same", seed=1)
    assert "model_dir: models/same is the run folder of 'a' too, which is in a.json" in one_line(
        cli("validate", "a.json", "b.json")
    )
    assert cli("validate", "b.json").returncode == 0
    assert cli("add", "a.json").returncode == 0
    assert "'a' too, which is pending in the queue" in one_line(cli("validate", "b.json"))
    assert cli("validate", "training_queue/a.json").returncode == 0


def test_validate_json_has_a_line_for_each_file(cli):
    good, bad = write_job(Path("good.json")), write_job(Path("bad.json"), optimizer_args={"learning_rate": 1})
    result = cli("validate", "--json", good, bad)
    assert result.returncode == 2
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["problems"] == []
    assert first["summary"]["steps_per_epoch"] == 21
    assert "optimizer_args.learning_rate: AdamW takes no such argument" in second["problems"][0]


# What is wrong with a job, and what must be said of it. One call checks them all: importing torch takes seconds.
MISTAKES = [
    ({"dataset": "ImageNette"}, "dataset: no folder"),
    ({"batch_size": 4000}, "batch_size: 4000 is more than the 1347 training images"),
    ({"class_subset": [3, 12]}, "class_subset: no class 12"),
    ({"scheduler": "StepLR", "scheduler_args": {"gamma": 0.1}}, "scheduler_args: StepLR needs step_size"),
    ({"scheduler": "CosineAnealingLR"}, "did you mean 'CosineAnnealingLR'"),
    ({"criterion": "CrossEntropy", "primary_metric": "acc1"}, "did you mean 'CrossEntropyLoss'"),
    ({"optimizer_args": {"learning_rate": 1}}, "optimizer_args.learning_rate: AdamW takes no such argument"),
    ({"optimizer_args": {"lr": -1}}, "optimizer_args: AdamW: Invalid learning rate"),
    ({"architecture_args": {"dropuot": 0.1}}, "did you mean 'dropout'"),
    ({"architecture": "squeezenet1_2"}, "did you mean 'squeezenet1_1'"),
    ({"trackers": ["wandbb"]}, "did you mean 'wandb'"),
    ({"image_size": 8}, "image_size: squeezenet1_1 does not work with images of 8 pixels"),
    ({"model_dir": "/proc/nowhere/run"}, "model_dir: cannot write to /proc/nowhere/run"),
    (
        {"video": True, "num_views": 2},
        "video: squeezenet1_1 does not take clips of 2 frames",
    ),
    (
        {"architecture": "cornet_r", "architecture_args": {"return_cycles": "all"}, "loss_cycle": 5},
        "loss_cycle: 5, but the model gives 5 cycles, from 0 to 4 or from -5 to -1",
    ),
    (
        {"architecture": "cornet_rt", "architecture_args": {}, "video": True, "num_views": 6, "batch_size": 60},
        "(batch, frames, 3, 32, 32): a clip of 6 frames: the model runs for 5 cycles",
    ),
    ({"architecture": "r3d_18", "architecture_args": {}}, "architecture: r3d_18 takes clips: set video to true"),
    ({"Occlusion": {"form": "mudSplash"}}, "accel-train make-occluders"),
    ({"Noise": {"noise_types": "fourier", "mean_magnitude_path": "m.pt"}}, "Noise.mean_magnitude_path: no file m.pt"),
    ({"num_views": 3, "batch_size": 4050}, "is more than the 1347 training images in 3 views each; use at most 4041"),
    ({"accelerate_config": "nowhere.yaml"}, "accelerate_config: nowhere.yaml: cannot be read"),
]


def test_mistakes_that_need_torch_or_the_disk_are_found(cli):
    files = [write_job(Path(f"{number}.json"), **changes) for number, (changes, _) in enumerate(MISTAKES)]
    verdicts = [json.loads(line) for line in cli("validate", "--json", *files).stdout.splitlines()]
    for file, verdict, (_, expected) in zip(files, verdicts, MISTAKES, strict=True):
        (problem,) = verdict["problems"]
        assert problem.startswith(f"{file}: ")
        assert expected in problem


def test_a_batch_that_cannot_be_divided_names_sizes_that_can(cli):
    job = write_job(Path("job.json"), batch_size=64)
    line = one_line(cli("validate", job, "--num-processes", "3"))
    assert "batch_size: 64 cannot be divided by 3 processes; use 63 or 66" in line


@pytest.mark.parametrize("verb", ["validate", "show", "train", "add"])
def test_every_verb_that_takes_a_job_refuses_what_is_none(forked_cli, verb):
    Path("folder.json").mkdir()
    write_job(Path("real.json"))
    Path("link.json").symlink_to("real.json")
    Path("noise.json").write_bytes(os.urandom(1_000_000))
    Path("twice.json").write_text('{"architecture": "small_cnn", "dataset": "digits", "seed": 1, "seed": 2}')
    expected = {
        "folder.json": "not a regular file",
        "link.json": "is a symbolic link",
        "noise.json": "larger than",
        "twice.json": "seed: given twice",
        "absent.json": "No such file",
    }
    for name, words in expected.items():
        assert words in one_line(forked_cli(verb, name))


def test_show_prints_a_job_with_all_its_defaults(cli):
    shown = json.loads(cli("show", write_job(Path("job.json"), scheduler=None)).stdout)
    assert shown["scheduler_args"] == {"step_size": 30, "gamma": 0.1}
    assert shown["optimizer_args"] == QUICK_JOB["optimizer_args"]
    assert shown["model_dir"] == "models/squeezenet1_1/job"


def test_a_preview_is_a_picture_and_the_same_every_time(cli, own_environment):
    job = write_job(Path("job.json"), num_views=2, transform_type="contrastive", Noise={"noise_types": "fourier"})
    result = cli("preview", job)
    assert (result.returncode, result.stdout, result.stderr) == (0, "wrote job.png\n", "")
    assert cli("preview", job, "--out", "again.png").returncode == 0
    assert cli("preview", job, "--epoch", "2", "--out", "later.png").returncode == 0
    first, again, later = (Path(f"{name}.png").read_bytes() for name in ("job", "again", "later"))
    assert first == again != later
    assert first.startswith(b"\x89PNG")
    refused = cli("preview", job, "--out", "nowhere/job.png")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: nowhere/job.png: cannot be written: No such file or directory\n",
    )


def test_occluders_are_made_and_jobs_use_them(cli):
    words = ("make-occluders", "occluders", "--number", "2", "--size", "64")
    result = cli(*words, "--forms", "mudSplash, natural", "--visibility", "20,80")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 4
    made = {str(path.relative_to("occluders")) for path in Path("occluders").rglob("*.pt")}
    assert made == {f"{form}/{level}/occluders.pt" for form in ("mudSplash", "natural") for level in (20, 80)}
    job = write_job(Path("job.json"), Occlusion={"form": ["mudSplash", "natural"], "occluder_dir": "occluders"})
    assert cli("validate", job).returncode == 0
    for given, said in (
        (("--forms", "mudsplash"), "no form 'mudsplash'"),
        (("--visibility", "half"), "--visibility: 'half' is not a percentage"),
        (("--visibility", "20", "--forms", "natural"), "already holds occluders"),
    ):
        refused = cli(*words, *given)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_add_copies_and_refuses_the_same_name_and_the_same_content(cli):
    job = write_job(Path("mine.json"))
    assert cli("add", job).returncode == 0
    assert Path("training_queue/mine.json").read_bytes() == job.read_bytes()
    again = cli("add", job)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == "mine.json: is pending in the queue already, the same; --force adds it anew\n"
    write_job(job, num_epochs=7, optimizer_args={"lr": 0.25})
    assert "a job 'mine' is pending in the queue, and this one has num_epochs" in (line := one_line(cli("add", job)))
    assert "-> 7, optimizer_args.lr 0.0003 -> 0.25; rename it, or add it with --force" in line
    write_job(job)
    same = write_job(Path("other.json"))
    assert "the same as 'mine'" in one_line(cli("add", same))
    assert cli("add", "--force", job, same).returncode == 0

    failed = Path("training_queue/mine.json").rename("training_queue/failed/mine.json")
    Path("training_queue/other.json").unlink()
    assert cli("add", job).returncode == 0, "one that has failed may be tried again"
    assert failed.exists()


def test_add_makes_jobs_that_evaluate_runs(cli):
    write_job(Path("training_queue/t.json"), model_dir="models/one/t")
    write_job(Path("training_queue/u.json"), model_dir="models/two/t")
    added = cli("add", "--evaluate", "t", "models/one/t", "models/two/t", "--weights", "final", "--data-root", "data")
    assert (added.returncode, added.stderr) == (0, "")
    names = ["t-validation-at-final", "one-t-validation-at-final", "two-t-validation-at-final"]
    assert added.stdout.splitlines() == [f"added training_queue/{name}.json" for name in names]
    contents = [json.loads(Path(f"training_queue/{name}.json").read_text()) for name in names]
    assert [content.pop("evaluate") for content in contents] == ["t", "models/one/t", "models/two/t"]
    assert all(content == {"weights": "final", "data_root": "data"} for content in contents)
    assert "a job 't-validation-at-final' is pending" in one_line(cli("add", "--evaluate", "t", "--weights", "final"))
    assert cli("add", "--evaluate", "t", "--name", "mine").stdout == "added training_queue/t-mine.json\n"
    validated = cli("validate", "training_queue/t-mine.json")
    what = "evaluates the best weights of t, when job 't' is done; results in evaluations/mine"
    assert validated.stdout == f"training_queue/t-mine.json: {what}\n"
    rows = {row["job"]: row for row in json.loads(cli("status", "--json").stdout)}
    assert (rows["t-mine"]["kind"], rows["t-mine"]["note"]) == ("evaluation", "waits for 't', which is pending")
    assert "kind" in cli("status").stdout.splitlines()[0]
    shown = json.loads(cli("show", "training_queue/t-mine.json").stdout)
    assert (shown["evaluate"], shown["name"], shown["weights"], shown["retries"]) == ("t", "mine", "best", 0)


def test_add_of_an_evaluation_says_what_is_wrong_in_a_line(forked_cli):
    job = write_job(Path("training_queue/t.json"), model_dir="models/t")
    said = "tt-validation: evaluate: 'tt' is not a run folder or a job of the queue training_queue"
    assert said in one_line(forked_cli("add", "--evaluate", "tt"))
    assert "did you mean 't'?" in one_line(forked_cli("add", "--evaluate", "tt"))
    assert (
        one_line(forked_cli("add", job, "--weights", "final"))
        == "error: --weights: is of an evaluation: add --evaluate"
    )
    assert "cannot be a folder's name" in one_line(forked_cli("add", "--evaluate", "t", "--name", "a/b"))
    Path("e.json").write_text('{"evaluate": "t", "num_epochs": 3}')
    for verb in ("add", "validate", "show"):
        assert one_line(forked_cli(verb, "e.json")) == (
            "error: e.json: num_epochs: is of jobs that train; this one evaluates a run"
        )
    for verb in ("train", "preview", "profile"):
        assert "e.json: evaluate: evaluates a run; what trains is a job without it" in one_line(
            forked_cli(verb, "e.json")
        )


def test_a_dry_run_has_evaluations_beside_trainings(cli):
    write_job(Path("training_queue/t.json"), model_dir="models/t")
    Path("training_queue/e.json").write_text('{"evaluate": "t"}')
    found = cli("run-queue", "--dry-run", "--cpu")
    assert found.returncode == 0
    assert "e: waits for 't', which is pending" in found.stderr
    assert "accel_trainer.workers.train training_queue/t.json" in found.stdout


CHILD = {"finetune": True, "finetune_args": {"starting_params": "parent"}}


def test_add_and_validate_accept_parents_that_come_later_but_no_impossible_names(cli):
    child, parent = write_job(Path("child.json"), **CHILD), write_job(Path("parent.json"), after=["not-there-yet"])
    said = "child.json: finetune_args.starting_params: 'parent' is neither a path nor a job of the queue"
    assert said in one_line(cli("validate", child))
    assert said in one_line(cli("add", child))
    added = cli("add", child, parent)
    assert (added.returncode, added.stderr) == (0, "")
    assert said in one_line(cli("validate", child, "--queue", "other"))


def test_status_prints_what_a_pending_job_waits_for(cli):
    write_job(Path("training_queue/child.json"), **CHILD, after=["first"])
    write_job(Path("training_queue/failed/parent.json"))
    write_job(Path("training_queue/held/waits-too.json"), after=["first"])
    notes = {row["job"]: row["note"] for row in json.loads(cli("status", "--json").stdout)}
    assert notes == {
        "child": "waits for 'first', which is not in the queue, and for 'parent', which has failed",
        "parent": None,
        "waits-too": None,
    }


def test_a_queue_of_jobs_that_can_never_run_ends_with_a_line_each(forked_cli):
    write_job(Path("training_queue/child.json"), **CHILD)
    write_job(Path("training_queue/held/parent.json"))
    result = forked_cli("run-queue")
    assert result.returncode == 1
    assert result.stdout.splitlines() == ["checking 1 job", "1 job to run", "child: waits for 'parent', which is held"]
    assert Path("training_queue/child.json").exists()


def test_dry_run_lists_jobs_in_dependency_order_with_their_parents(cli):
    queue = Path("training_queue")
    write_job(queue / "a.json", after=["child"])
    write_job(queue / "child.json", **CHILD)
    write_job(queue / "parent.json", model_dir="runs/first one")
    result = cli("run-queue", "--dry-run")
    assert result.returncode == 0, result.stderr
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    assert [next(word for word in words if word.startswith("--name=")) for words in commands] == [
        "--name=parent",
        "--name=child",
        "--name=a",
    ]
    assert [[word for word in words if word.startswith("--starting")] for words in commands] == [
        [],
        ["--starting-params=runs/first one"],
        [],
    ]

    write_job(queue / "parent.json", after=["lost"])
    result = cli("run-queue", "--dry-run")
    assert (result.returncode, result.stdout) == (1, "")
    assert "parent: waits for 'lost', which is not in the queue\n" in result.stderr
    write_job(queue / "parent.json", after=["a"])
    result = cli("run-queue", "--dry-run")
    assert result.returncode == 2
    assert result.stderr.count("after: the job waits for itself") == 3


def test_a_single_job_is_not_trained_from_one_that_is_not_done(forked_cli):
    write_job(Path("training_queue/parent.json"))
    child = write_job(Path("child.json"), **CHILD)
    said = "finetune_args.starting_params: 'parent' is pending in training_queue, not done; add this job to the queue"
    assert said in one_line(forked_cli("train", child))
    assert "'parent' is neither a path nor a job of the queue other" in one_line(
        forked_cli("train", child, "--queue", "other")
    )


def test_train_refuses_after_and_passes_on_the_starting_parameters(monkeypatch, capsys):
    attempts = []

    async def go_through(attempt, *_):
        attempts.append(attempt)
        return Outcome(OutcomeKind.DONE)

    monkeypatch.setattr("accel_trainer.launch.attempt.run_attempt", go_through)
    monkeypatch.setattr("accel_trainer.core.processes.StopRequest.listen", lambda *_: None)
    write_job(Path("training_queue/done/parent.json"))
    train.train(str(write_job(Path("child.json"), **CHILD, after=["first"])))
    assert "after: only a queue waits for other jobs; child is trained now" in capsys.readouterr().err
    assert attempts[0].starting_params == Path("models/squeezenet1_1/parent")


def test_what_is_no_job_goes_to_failed_and_nothing_else_is_harmed(forked_cli):
    queue = Path("training_queue")
    queue.mkdir()
    Path("victim.json").write_text("{}")
    (queue / "link.json").symlink_to(Path("victim.json").absolute())
    (queue / "folder.json").mkdir()
    (queue / "noise.json").write_bytes(os.urandom(1_000_000))
    (queue / "-rf.json").write_text("{}")
    (queue / "new\nline.json").write_text("{}")
    result = forked_cli("run-queue")
    assert result.returncode == 1
    assert Path("victim.json").read_text() == "{}"
    failed = {path.name for path in (queue / "failed").iterdir() if path.suffix == ".json"}
    assert failed == {"link.json", "folder.json", "noise.json", "rf.json", "new_line.json"}
    assert "is a symbolic link" in (queue / "failed/link.reason.txt").read_text()
    assert not list(queue.glob("*.json"))


def test_a_queue_that_cannot_be_is_exit_code_3(forked_cli):
    Path("file").write_text("")
    assert "cannot be used" in one_line(forked_cli("run-queue", "--queue", "file"), exit_code=3)
    assert "there is no queue" in one_line(forked_cli("status"), exit_code=3)


def test_an_empty_queue_ends_at_once_with_success(forked_cli):
    assert forked_cli("run-queue").returncode == 0
    assert "no jobs" in forked_cli("status").stdout


@pytest.mark.parametrize(("flag", "value"), [("--gpus", "0,zero"), ("--gpus", "1,1")])
def test_contradictory_flags_are_refused_with_one_line_each(forked_cli, flag, value):
    assert "--gpus" in one_line(forked_cli("run-queue", flag, value))


def test_a_users_model_needs_permission_and_its_output_stays_off_stdout(forked_cli):
    Path("my_lab.py").write_text(
        "from torch import nn\nprint('{imported}')\n\n\ndef small(num_classes):\n"
        "    print('built')\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))\n"
    )
    job = write_job(Path("job.json"), architecture="my_lab:small", architecture_args=None)
    allowed = forked_cli("validate", "--json", "--allow-imports", "my_lab", job)
    assert json.loads(allowed.stdout)["summary"]["parameters"] == 3 * 32 * 32 * 10 + 10
    assert "imported" not in allowed.stderr + allowed.stdout
    assert forked_cli("add", job, ACCEL_TRAIN_ALLOW_IMPORTS="my_lab").returncode == 0
    refused = forked_cli("validate", job)
    said = "architecture: importing 'my_lab' is not allowed; allow it with --allow-imports my_lab or "
    assert one_line(refused) == f"error: job.json: {said}ACCEL_TRAIN_ALLOW_IMPORTS=my_lab"
    assert "imported" not in refused.stderr
    printed = forked_cli(
        "run-queue", "--dry-run", "--allow-imports", "my_lab", ACCEL_TRAIN_ALLOW_IMPORTS="other"
    ).stdout
    assert "ACCEL_TRAIN_ALLOW_IMPORTS=other,my_lab" in printed.partition("accelerate launch")[0]
    assert "--allow-imports: 'my lab' is not the name" in one_line(
        forked_cli("train", job, "--allow-imports", "my lab")
    )


def test_models_are_listed_for_people_and_for_programs(capsys, monkeypatch):
    from accel_trainer.zoo import registry, timm_models

    entries = registry.catalogue("alexnet")
    monkeypatch.setattr(registry, "catalogue", lambda family: entries)
    job_files.models(family=None, as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        "name": "alexnet",
        "family": "alexnet",
        "source": "torchvision",
        "takes": "images",
        "parameters": 61_100_840,
    }
    job_files.models(family=None, as_json=False)
    header, line, timms = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "family", "source", "takes", "parameters"]
    assert line.split() == ["alexnet", "alexnet", "torchvision", "images", "61,100,840"]
    assert timms.startswith("and timm:<name>, such as timm:convnext_tiny, for 1,")
    monkeypatch.setattr(timm_models, "is_installed", lambda: False)
    job_files.models(family=None, as_json=False)
    assert capsys.readouterr().out.endswith("pip install 'accel-train[timm]'\n")


def test_dry_run_prints_a_command_for_each_job_and_trains_nothing(cli):
    write_job(Path("training_queue/a.json"))
    result = cli("run-queue", "--dry-run", "--config", REPOSITORY / "accelerate_configs/multi_cpu.yaml")
    assert "accelerate launch --config_file" in result.stdout
    assert "ACCELERATE_USE_CPU=true" in result.stdout
    assert Path("training_queue/a.json").exists()
    assert not Path("models").exists()


def test_compare_refuses_a_folder_without_a_run(cli):
    assert "is not a run folder" in one_line(cli("compare", "."))


@pytest.mark.slow
def test_half_precision_on_a_cpu_is_refused(cli):
    result = cli("train", write_job(Path("job.json"), mixed_precision="fp16"))
    assert result.returncode == 2
    assert "mixed_precision: fp16 does not work on a CPU; use 'bf16' or 'no'" in result.stdout


@pytest.mark.slow
def test_a_checkout_runs_without_an_installation_of_the_package(own_environment):
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "cli.py"), "status"], capture_output=True, text=True, cwd=own_environment
    )
    assert result.returncode == 3


def test_compare_shows_the_runs_there_are_and_names_the_others(cli):
    for name in ("good", "other"):
        Path(name).mkdir()
    Path("good/config.json").write_text('{"architecture": "resnet18", "num_epochs": 2, "primary_metric": "acc1"}')
    result = cli("compare", "good", "other")
    assert "other is not a run folder" in one_line(result)
    assert "resnet18" in result.stdout


def test_dry_run_reports_mistakes_of_the_job_files(cli):
    assert "no jobs in" in cli("run-queue", "--dry-run").stdout
    write_job(Path("training_queue/a.json"), batchsize=3)
    assert "batchsize: unknown key" in one_line(cli("run-queue", "--dry-run"))


def test_a_schema_that_cannot_be_written_is_one_line(cli):
    assert "cannot be written" in one_line(cli("schema", "--output", "nowhere/schema.json"))


@pytest.mark.parametrize(("answers", "chosen"), [("\n", None), ("1\n", ("1",)), ("5\nx\n1,0\n", ("1", "0"))])
def test_with_several_gpus_a_terminal_asks_which_and_enter_means_all(monkeypatch, capsys, answers, chosen):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    gpus = tuple(Gpu(str(i), "A100", "40 GiB") for i in range(2))
    monkeypatch.setattr(run_queue, "this_machine", lambda: Machine(gpus, False, 8))
    monkeypatch.setattr("sys.stdin", Terminal(answers))
    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    assert run_queue.ask_for_gpus(LaunchOptions()).gpus == chosen
    assert "0: A100 (40 GiB)" in shown.getvalue()
    assert run_queue.ask_for_gpus(LaunchOptions(num_processes=1)) == LaunchOptions(num_processes=1), (
        "flags are an answer"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked", "unplotted")
def test_watch_waits_for_jobs_until_it_is_stopped(background):
    runner = background("run-queue", "--watch")
    wait_until(lambda: Path("training_queue/done").is_dir())
    write_job(Path("training_queue/late.json"), num_epochs=1, class_subset=[0, 1])
    wait_until(lambda: Path("training_queue/done/late.json").exists())
    time.sleep(1)  # for it to see that there are no more
    assert runner.poll() is None
    runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=30)
    assert runner.returncode == 130
    assert "waiting for jobs" in output


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_training_has_begun_puts_the_job_back(background, number):
    write_job(Path("training_queue/a.json"))
    runner = background("run-queue")
    wait_until(lambda: trainers_in(Path.cwd()))
    runner.send_signal(number)
    runner.communicate(timeout=90)
    assert runner.returncode == 128 + number
    assert Path("training_queue/a.json").exists()
    assert not trainers_in(Path.cwd())


@pytest.mark.slow
def test_a_finished_run_gets_the_table_that_its_killed_trainer_missed(cli, server):
    model_dir = str(Path("run").absolute())
    job = write_job(Path("job.json"), num_epochs=1, class_subset=[0, 1], model_dir=model_dir)
    server.train(job)  # it draws no curves
    table = Path("run/performance.csv").read_text()
    Path("run/performance.csv").write_text(table.splitlines()[0] + "\n")
    assert not Path("run/performance.png").exists()
    assert cli("train", job).returncode == 0
    assert Path("run/performance.csv").read_text() == table
    assert Path("run/performance.png").exists()


# -- files that the user names ----------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_users_older_file_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "mine/schema.json"
    file.parent.mkdir()
    file.write_text("older")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"schema\.json: cannot be written: No space left on device"):
        write_file(file, b"newer")
    assert (file.read_text(), list(file.parent.iterdir())) == ("older", [file])


def test_a_link_or_a_pipe_of_the_user_is_written_through(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_file(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"content"
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", b"content")
    assert os.read(reading, 100) == b"content"
    os.close(reading)
