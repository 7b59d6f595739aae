"""The paths of a queue's jobs count from the folder that the queue is in, wherever a verb is typed."""

import json
import os
from pathlib import Path

import pytest
from conftest import Cli
from hf_sets import picture

from accel_trainer.cli.queue_home import at_home


@pytest.fixture
def lab(own_environment: Path) -> Path:
    """A folder with a queue, which is not the working folder."""
    lab = own_environment / "lab"
    (lab / "training_queue").mkdir(parents=True)
    return lab


def job(folder: Path, name: str = "a", **parameters: object) -> Path:
    path = folder / f"{name}.json"
    small = {"architecture": "small_cnn", "dataset": "digits", "image_size": 32, "num_epochs": 1}
    path.write_text(json.dumps(small | parameters))
    return path


@pytest.mark.slow
def test_a_run_is_beside_its_queue_whoever_runs_it_from_where(lab: Path, cli: Cli) -> None:
    job(lab / "training_queue")
    queue = ("--queue", "lab/training_queue")
    ran = cli("run-queue", "--cpu", *queue)
    assert ran.returncode == 0, ran.stderr
    assert f"count from {lab}" in ran.stderr
    assert (lab / "models/small_cnn/a/status.json").is_file()
    assert not Path("models").exists()
    (row,) = json.loads(cli("status", "--json", "--queue", lab / "training_queue").stdout)
    assert row["epoch"] == 1
    shown = cli("show", "a", *queue)
    assert f"run folder {lab}/models/small_cnn/a\n" in shown.stderr
    assert "resnet" not in shown.stdout
    compared = cli("compare", "lab/models/small_cnn/a", *queue, "--html", "page.html")
    assert compared.returncode == 0, compared.stderr
    assert Path("page.html").is_file()


def test_the_files_that_are_typed_count_from_where_they_are_typed(lab: Path, cli: Cli) -> None:
    job(Path(), "b")
    added = cli("add", "b.json", "--queue", "lab/training_queue")
    assert added.returncode == 0, added.stderr
    assert (lab / "training_queue/b.json").is_file()
    drawn = cli("preview", "b", "--queue", "lab/training_queue")
    assert drawn.returncode == 0, drawn.stderr
    assert Path("b.png").is_file()
    assert cli("preview", "b.json", "--queue", "lab/training_queue", "--out", "c.png").returncode == 0
    assert Path("c.png").is_file()
    swept = cli("sweep", "b.json", "--set", "seed=1,2", "--queue", "lab/training_queue")
    assert swept.returncode == 0, swept.stderr
    assert len(list(Path("b").glob("*.json"))) == 2
    assert cli("hold", "b.json", "--queue", "lab/training_queue").returncode == 0
    assert sorted(path.name for path in lab.iterdir()) == ["training_queue"]


def test_data_counts_from_the_queue_too(lab: Path, cli: Cli) -> None:
    job(lab / "training_queue", dataset="photos", data_root="data", batch_size=2)
    refused = cli("validate", "a", "--queue", "lab/training_queue")
    assert refused.returncode == 2
    assert "data/photos" in refused.stderr
    for split in ("train", "val"):
        for label in ("x", "y"):
            folder = lab / "data/photos" / split / label
            folder.mkdir(parents=True)
            picture(1).save(folder / "1.png")
    assert cli("validate", "a", "--queue", "lab/training_queue").returncode == 0


def test_the_working_folder_is_as_before_and_a_queue_that_is_here_changes_nothing(lab: Path) -> None:
    here = Path.cwd()
    typed = {"queue": Path("lab/training_queue"), "out": Path("x.png"), "packages": "a/b", "config": Path("cpu.yaml")}
    with at_home(typed) as meant:
        assert Path.cwd() == lab
        assert meant == {**typed, "queue": lab / "training_queue", "out": here / "x.png"}
    assert Path.cwd() == here
    Path("link").symlink_to(lab / "training_queue")
    for queue in (Path("training_queue"), Path("link"), Path("nowhere/queue"), here / "link", None):
        with at_home({"queue": queue, "out": Path("x.png")}) as meant:
            assert meant == {"queue": queue, "out": Path("x.png")}
            assert Path.cwd() == here


def test_a_working_folder_that_is_gone_is_no_obstacle(lab: Path) -> None:
    gone = lab / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with at_home({"queue": Path("training_queue")}) as meant:
        assert meant == {"queue": Path("training_queue")}
