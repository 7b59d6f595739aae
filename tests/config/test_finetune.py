"""Fine-tuning and pretrained weights in a job file: where the run is, what it starts from, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.config import Job, parse_job
from accel_trainer.config.places import is_weights_path
from accel_trainer.core.errors import UserError


def parse(**given: Any) -> Job:
    return parse_job(json.dumps({"architecture": "resnet18", **given}).encode(), "job", where="job.json")


def finetune(**args: Any) -> Job:
    return parse(model_dir="runs/parent", finetune=True, finetune_args={"starting_params": "w.pt", **args})


def problem(**given: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse(**given)
    (line,) = caught.value.problems
    return line.removeprefix("job.json: ")


def test_a_fine_tuned_run_lies_in_the_folder_of_its_parent() -> None:
    assert finetune().run_path == Path("runs/parent/finetune")
    assert finetune(finetune_dir="two/classes").run_path == Path("runs/parent/two/classes")
    job = parse(finetune=True, finetune_args={"starting_params": "w.pt"})
    assert job.run_path == Path("models/resnet18/job/finetune")
    assert parse(model_dir="runs/parent").run_path == Path("runs/parent")


def test_it_starts_from_what_is_given_or_from_its_parent(
    own_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse().starting_path is None
    assert finetune().starting_path == Path("w.pt")
    assert finetune(starting_params="~/w.pt").starting_path == tmp_path / "w.pt"
    (own_environment / "runs/parent/params").mkdir(parents=True)
    assert finetune(starting_params=None).starting_path == Path("runs/parent")
    assert parse(model_dir="runs/parent", finetune=True).starting_path == Path("runs/parent")


def test_the_parent_is_looked_for_in_its_own_folder(own_environment: Path) -> None:
    said = problem(model_dir="runs/parent", finetune=True)
    assert said.startswith("finetune: nothing to start from")
    assert said.endswith("(there is none in runs/parent)")
    (own_environment / "runs/parent/finetune/params").mkdir(parents=True)
    assert problem(model_dir="runs/parent", finetune=True) == said


def test_a_completed_fine_tuning_job_is_a_job_file_of_the_same_job() -> None:
    for job in (finetune(freeze_modules=["layer1"]), parse(finetune=True, finetune_args={"starting_params": "w.pt"})):
        again = parse_job(json.dumps(job.completed()).encode(), "job", where="config.json")
        assert again.run_path == job.run_path
        assert job.incompatible_diff(again.completed()) == {}


def test_what_a_run_starts_from_makes_it_another_run() -> None:
    assert "finetune_args" in finetune(freeze_modules=["layer1"]).incompatible_diff(finetune().completed())
    assert "pretrained" in parse(pretrained="DEFAULT").incompatible_diff(parse().completed())


@pytest.mark.parametrize(
    ("model_dir", "finetune_dir", "expected"),
    [
        ("runs/parent", "runs/parent/two", "runs/parent/two"),
        ("runs/parent/", "./runs/parent/two/classes", "runs/parent/two/classes"),
        ("./runs/parent", "runs/parent/two", "runs/parent/two"),
        ("/lab/parent", "/lab/parent/two", "/lab/parent/two"),
        ("runs/parent", "{cwd}/runs/parent/two", "runs/parent/two"),
        ("{cwd}/runs/parent", "runs/parent/two", "{cwd}/runs/parent/two"),
        ("/lab/runs/parent", "runs/parent/two", "/lab/runs/parent/runs/parent/two"),
        ("~/parent", "~/parent/two", "{home}/parent/two"),
        ("~/parent", "{home}/parent/two", "{home}/parent/two"),
        ("{home}/parent", "~/parent/two", "{home}/parent/two"),
        ("runs/parent", "runs/parents/two", "runs/parent/runs/parents/two"),
        ("runs/parent", "parent/two", "runs/parent/parent/two"),
        ("{cwd}", "two", "{cwd}/two"),
        (".", "two", "two"),
    ],
)
def test_a_folder_given_with_its_model_dir_is_not_doubled(
    own_environment: Path, monkeypatch: pytest.MonkeyPatch, model_dir: str, finetune_dir: str, expected: str
) -> None:
    home = str(own_environment / "home")
    monkeypatch.setenv("HOME", home)
    model_dir, finetune_dir, expected = (
        text.format(cwd=Path.cwd(), home=home) for text in (model_dir, finetune_dir, expected)
    )
    args = {"starting_params": "w.pt", "finetune_dir": finetune_dir}
    job = parse(model_dir=model_dir, finetune=True, finetune_args=args)
    assert job.run_path == Path(expected)
    assert parse(**job.completed()).run_path == Path(expected)


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("runs/parent", "is no folder inside model_dir"),
        ("runs/parent/params", "the parent run has its own params/"),
        ("runs/parent/.new", "is no folder inside model_dir"),
        ("runs/parent/../x", "may not contain '..'"),
    ],
)
def test_a_folder_given_with_its_model_dir_is_no_less_checked(folder: str, said: str) -> None:
    args = {"starting_params": "w.pt", "finetune_dir": folder}
    assert said in problem(model_dir="runs/parent", finetune=True, finetune_args=args)


@pytest.mark.parametrize("folder", [".", "/elsewhere", "~/a", ".new", "a/.b"])
def test_a_fine_tuned_run_stays_inside_of_its_parent(folder: str) -> None:
    said = problem(finetune=True, finetune_args={"starting_params": "w.pt", "finetune_dir": folder})
    assert said.startswith(f"finetune_args.finetune_dir: '{folder}' is no folder inside model_dir")


@pytest.mark.parametrize("folder", ["params", "resume/a", "logs", "previous"])
def test_a_fine_tuned_run_does_not_mix_with_its_parent(folder: str) -> None:
    said = problem(finetune=True, finetune_args={"starting_params": "w.pt", "finetune_dir": folder})
    assert said.startswith(f"finetune_args.finetune_dir: '{folder}': the parent run has its own {folder.split('/')[0]}")


@pytest.mark.parametrize("bad", ["", "../a", "a/../b", "a\nb"])
def test_paths_of_weights_are_checked_as_others_are(bad: str) -> None:
    for name in ("starting_params", "finetune_dir"):
        args = {"starting_params": "w.pt", name: bad}
        assert problem(finetune=True, finetune_args=args).startswith(f"finetune_args.{name}: ")
    assert problem(pretrained=bad).startswith("pretrained: ")


def test_there_is_one_thing_to_start_from() -> None:
    said = problem(finetune=True, finetune_args={"starting_params": "w.pt"}, pretrained="DEFAULT")
    assert said.startswith("pretrained: with finetune the weights are those of finetune_args.starting_params")


def test_a_path_is_distinguished_from_a_name() -> None:
    for path in ("a/b", "/a", "~/a", "a.pt", "a.pth.tar", "a.PTH", "a.safetensors", "a.ckpt", "a.bin", "~a"):
        assert is_weights_path(path)
    for name in ("DEFAULT", "IMAGENET1K_V1", "job", "job.v2", "x" * 5000):
        assert not is_weights_path(name)


def test_only_what_another_job_trains_may_come_later() -> None:
    assert finetune(starting_params="pretraining").may_start_later
    assert not finetune(starting_params="runs/pretraining").may_start_later
    assert not finetune().may_start_later
    assert not parse().may_start_later
    fields = {**dict(finetune()), "after": ["pretraining"]}
    assert Job.model_construct(**fields).may_start_later
