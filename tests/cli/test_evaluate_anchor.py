"""`accel-train evaluate --architecture`: what is said of weights that were not trained here, and what is refused."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from accel_trainer.api.trained_run import Run, load_run
from accel_trainer.cli.app import app
from accel_trainer.launch.call_worker import WorkerCall
from accel_trainer.zoo import registry


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    @contextmanager
    def launch(run: Run, dataset: str | None, **options: Any) -> Iterator[WorkerCall]:
        assert dataset is None  # it is its own
        yield WorkerCall(json.loads(json.dumps(run.evaluate().as_row())), Path("unused"))

    monkeypatch.setattr(Run, "launch_evaluation", launch)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = registry.build("small_cnn", {"features": [8, 8, 8]}, num_classes=10, image_size=16)
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def test_it_says_what_is_assumed_and_leaves_a_run_folder(weights: Path, tmp_path: Path) -> None:
    given = ("--architecture", "small_cnn", "--pretrained", weights, "--dataset", "digits", "--out", tmp_path / "a")
    settings = ("--set", "architecture_args.features=[8,8,8]", "--set", "image_size=16", "--set", "mean=[0.5,0.5,0.5]")
    ended = run(*given, *settings)
    assert ended.exit_code == 0, ended.output
    source, classes, preprocessing, folder, *_ = ended.stderr.splitlines()
    assert source.startswith(f"weights {weights}: ")
    assert classes == "classes: the 10 classes of digits, in their order (0, 1, 2 and 7 more)"
    assert preprocessing.startswith(
        "preprocessing: 16 of 18 pixels, bilinear, mean 0.5 0.5 0.5, std 0.229 0.224 0.225, as by"
    )
    assert folder == f"run folder: {tmp_path / 'a'}"
    header, row = ended.stdout.splitlines()
    summary = load_run(tmp_path / "a").summary
    assert dict(zip(header.split(), row.split(), strict=True))["acc1"] == f"{summary.best:.2f}"
    assert (summary.job, summary.state) == ("a", "pretrained")


def test_names_of_classes_are_taken_from_a_file(weights: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{number}\n" for number in reversed(range(10))))
    given = ("--architecture", "small_cnn", "--pretrained", weights, "--dataset", "digits", "--out", tmp_path / "a")
    settings = ("--set", "architecture_args.features=[8,8,8]", "--set", "image_size=16")
    assert run(*given, *settings, "--classes", names).exit_code == 0
    assert load_run(tmp_path / "a").classes == [str(number) for number in reversed(range(10))]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "no run folder is given; or give `architecture`, `pretrained` and `dataset`"),
        ("--architecture small_cnn", "`dataset`: is needed with `architecture`"),
        ("somewhere --architecture small_cnn", "`architecture`: is of weights that were not trained here"),
        ("somewhere --set a=1", "`set`: is of weights that were not trained here"),
        ("--architecture small_cnn --dataset digits --set image_size=16,32", "`set`: one value for each key"),
        ("--architecture small_cnn --dataset digits --set a.b.c=1", "`set`: a.b.c is nested too deeply"),
        ("--architecture small_cnn --dataset digits", "pretrained: torchvision has no weights for small_cnn"),
    ],
)
def test_mistakes_are_a_line(words: str, line: str) -> None:
    ended = run(*words.split())
    assert ended.exit_code != 0
    assert str(ended.exception).startswith(line)
