"""What a run began with and is missing at a later start is away: the machine's matter. What never was there is not."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from helpers import wait_until
from loops import TINY
from PIL import Image
from safetensors.torch import save_file

from accel_trainer.api.verdicts import make_check
from accel_trainer.config import Job, read_job
from accel_trainer.core import outage
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import MachineFailure, expecting, waiting_out
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.inputs import known_inputs
from accel_trainer.run.records import read_found, write_config
from accel_trainer.run.status import RunState
from accel_trainer.training.build import training_data
from accel_trainer.training.pretrained.starting_weights import load_starting_weights
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.session import SessionOptions, train
from accel_trainer.workers import validate

pytestmark = pytest.mark.usefixtures("tiny_models")
Start = Callable[..., TrainingResult]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in every form, and all else that a job may read."""
    root = tmp_path_factory.mktemp("original") / "disk"
    for split, count in (("train", 8), ("val", 2)):
        rows: dict[str, list[Any]] = {"image": [], "label": []}
        for number in range(2 * count):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            path = root / "set" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            rows["image"].append({"bytes": path.read_bytes(), "path": None})
            rows["label"].append(number % 2)
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        (root / "rows").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "rows" / f"{split}.parquet")
    shutil.copytree(root / "set", root / "other")
    images = open_data_set("set", root, None, None)
    pack(images, "set", root / "set.pack", PackSettings(8, "raw"), 1, lambda done, total: None)
    (root / "occluders" / "bars" / "50").mkdir(parents=True)
    masks = torch.zeros(4, 8, 8, dtype=torch.uint8)
    masks[:, :4] = 255
    torch.save(masks, root / "occluders" / "bars" / "50" / "occluders.pt")
    save_file({"mean_magnitude": torch.ones(3, 8, 8)}, root / "spectrum.safetensors")
    save_file({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, root / "weights.safetensors")
    return root


@pytest.fixture
def disk(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "disk"))


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setenv(outage.PATIENCE_VARIABLE, "0.005")


Inputs = Callable[..., Job]


@pytest.fixture
def job_on(make_job: Callable[..., Job], disk: Path, tmp_path: Path) -> Inputs:
    """A job on the disk, `{disk}` in its parameters."""

    def make(**given: Any) -> Job:
        few = {"batch_size": 8, "dataset": "set", "data_root": "{disk}", "model_dir": str(tmp_path / "run")}
        text = json.dumps({**TINY, **few, **given}).replace("{disk}", str(disk))
        return make_job(**json.loads(text))

    return make


def begin(job: Job) -> RunFolder:
    """The folder of a run of this job that was begun."""
    run = RunFolder(job.run_path)
    run.create()
    write_config(run, job.completed())
    return run


def read_inputs(job: Job) -> None:
    """Open all that a start reads, as the training does."""
    with waiting_out(lambda: False), expecting(known_inputs(job, RunFolder(job.run_path))):
        training_data(job.resolve(), 1)
        if job.finetune:
            load_starting_weights(job, torch.nn.Linear(2, 2))


@pytest.fixture
def start(job_on: Inputs) -> Start:
    """Train a job for one epoch, or for more."""

    def begin(epochs: int = 1, **given: Any) -> TrainingResult:
        job = job_on(num_epochs=epochs, **given)
        run = RunFolder(job.run_path)
        run.create()
        return train(job, run, StopRequest(), SessionOptions(cpu=True, prints=False))

    return begin


def empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def gone(path: str) -> Callable[[Path], None]:
    return lambda disk: (disk / path).rename(disk.parent / "elsewhere")


def emptied(path: str) -> Callable[[Path], None]:
    return lambda disk: empty(disk / path)


OCCLUDED = {"form": ["bars"], "visibility": [50], "probability": 1.0}
NOISY = {"noise_types": ["fourier"], "ssnrs": [0.5]}
WITHOUT: dict[str, tuple[dict[str, Any], Callable[[Path], None], str]] = {
    "the folder": ({}, gone("set"), "set"),
    "all of the disk": ({}, gone(""), "set"),
    "what is mounted as the disk": ({}, emptied(""), "set"),
    "what is mounted as the set": ({}, emptied("set"), "set"),
    "train": ({}, gone("set/train"), "train"),
    "all of train": ({}, emptied("set/train"), "train"),
    "all of a class": ({}, emptied("set/train/a"), "a has no images"),
    "val": ({}, gone("set/val"), "val"),
    "all of val": ({}, emptied("set/val"), "val"),
    "a pack": ({"dataset": "set.pack"}, gone("set.pack"), "set.pack"),
    "what is mounted as a pack": ({"dataset": "set.pack"}, emptied("set.pack"), "set.pack"),
    "pixels of a pack": ({"dataset": "set.pack"}, gone("set.pack/train.pixels"), "train.pixels"),
    "an index of a pack": ({"dataset": "set.pack"}, gone("set.pack/val.index"), "val.index"),
    "tables": ({"dataset": "hf:{disk}/rows"}, gone("rows"), "rows"),
    "what is mounted as tables": ({"dataset": "hf:{disk}/rows"}, emptied("rows"), "rows"),
    "a folder of images by the library": ({"dataset": "hf:{disk}/set"}, gone("set"), "set"),
    "another set to evaluate on": ({"eval_sets": ["other"]}, gone("other"), "other"),
    "occluders": ({"Occlusion": {"occluder_dir": "{disk}/occluders", **OCCLUDED}}, gone("occluders"), "occluders"),
    "all occluders": ({"Occlusion": {"occluder_dir": "{disk}/occluders", **OCCLUDED}}, emptied("occluders"), "occlu"),
    "one of them": (
        {"Occlusion": {"occluder_dir": "{disk}/occluders", **OCCLUDED}},
        gone("occluders/bars/50/occluders.pt"),
        "occluders",
    ),
    "a spectrum": (
        {"Noise": {"mean_magnitude_path": "{disk}/spectrum.safetensors", **NOISY}},
        gone("spectrum.safetensors"),
        "spectrum",
    ),
    "weights": (
        {"finetune": True, "finetune_args": {"starting_params": "{disk}/weights.safetensors"}},
        gone("weights.safetensors"),
        "weights",
    ),
}


@pytest.mark.parametrize("what", WITHOUT)
def test_what_a_run_began_with_is_away_when_it_is_missing_at_a_later_start(
    job_on: Inputs, disk: Path, what: str
) -> None:
    given, take, name = WITHOUT[what]
    job = job_on(**given)
    begin(job)
    read_inputs(job)
    take(disk)
    with pytest.raises(MachineFailure, match=name):
        read_inputs(job)


@pytest.mark.parametrize("what", WITHOUT)
def test_what_never_was_there_is_the_users_mistake(job_on: Inputs, disk: Path, what: str) -> None:
    given, take, _ = WITHOUT[what]
    take(disk)
    with pytest.raises(UserError):
        read_inputs(job_on(**given))


def test_a_class_that_is_a_link_to_a_disk_that_is_away_does_not_count_as_removed(
    job_on: Inputs, disk: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for split in ("train", "val"):
        (disk / "set" / split / "a").rename(elsewhere / split)
        (disk / "set" / split / "a").symlink_to(elsewhere / split)
    job = job_on()
    begin(job)
    read_inputs(job)
    elsewhere.rename(tmp_path / "away")
    with pytest.raises(MachineFailure, match="train: has links that lead nowhere: a"):
        read_inputs(job)


@pytest.mark.parametrize("given", [{"eval_sets": ["othre"]}, {"data_root": "{disk}/elsewhere"}, {"dataset": "sett"}])
def test_what_only_the_job_names_now_is_the_users_mistake(job_on: Inputs, given: dict[str, Any]) -> None:
    begin(job_on())
    with pytest.raises(UserError):
        read_inputs(job_on(**given))


def test_what_a_run_in_the_folder_of_its_parent_lacks_itself_is_not_away(job_on: Inputs, disk: Path) -> None:
    """A fine-tuning run, below the run that it starts from."""
    job = job_on(model_dir=str(disk), finetune=True, finetune_args={"starting_params": "{disk}"})
    run = begin(job)
    with waiting_out(lambda: False), expecting(known_inputs(job, run), own=run.path):
        assert read_found(run) == {}
        (disk / "weights.safetensors").unlink()
        with pytest.raises(MachineFailure):
            outage.is_file(disk / "weights.safetensors")


def test_a_run_whose_disk_is_away_at_its_start_resumes_later(start: Start, disk: Path, tmp_path: Path) -> None:
    start().check()
    disk.rename(tmp_path / "away")
    result = start(2)
    assert (result.state, result.error) == (RunState.MACHINE_FAILED, None)
    assert str(result.reason) == f"{disk}/set/train cannot be read: No such file or directory"
    (tmp_path / "away").rename(disk)
    start(2).check()


@pytest.mark.parametrize("dataset", ["set", "set.pack", "hf:{disk}/rows"])
def test_a_disk_that_comes_back_while_a_start_waits_goes_unnoticed(
    job_on: Inputs, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    monkeypatch.setenv(outage.PATIENCE_VARIABLE, "60")
    job = job_on(dataset=dataset)
    begin(job)
    disk.rename(tmp_path / "away")
    disk.mkdir()

    def come_back() -> None:
        wait_until(lambda: outage._outage._waiting)
        disk.rmdir()
        (tmp_path / "away").rename(disk)

    thread = threading.Thread(target=come_back)
    thread.start()
    read_inputs(job)
    thread.join()


def test_the_checker_leaves_a_run_whose_disk_is_away_to_the_trainer(disk: Path, tmp_path: Path) -> None:
    job = {"architecture": "squeezenet1_1", "dataset": "set", "data_root": str(disk), "trackers": []}
    resumed, new = tmp_path / "resumed.json", tmp_path / "new.json"
    for file in (resumed, new):
        file.write_text(json.dumps({**job, "batch_size": 8, "model_dir": str(tmp_path / file.stem)}))
    begin(read_job(resumed))
    disk.rename(tmp_path / "away")
    check, queue = make_check(LaunchOptions()), QueueStore(tmp_path / "queue")
    files = enumerate((resumed, new))
    requests = [{"check": number, "file": str(file), "content": file.read_text()} for number, file in files]
    found = [validate._verdict(request, check, queue, ())["problems"] for request in requests]
    assert found[0] == []
    assert f"no folder {disk}/set; there are no folders in {disk}" in found[1][0]
