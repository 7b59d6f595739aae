"""The same training, whatever the number of processes and whoever is killed when."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch
from helpers import REPOSITORY, kill_tree, trainers_in, wait_until, write_job
from safetensors.torch import load_file
from torchvision import models
from torchvision.transforms import v2

from accel_trainer.config import read_job
from accel_trainer.data.preview import preview

pytestmark = pytest.mark.slow

# ShuffleNet has BatchNorm; every kind of augmentation draws; the state is saved every 1.2 s.
RESTLESS = {
    "architecture": "shufflenet_v2_x0_5",
    "architecture_args": None,
    "num_epochs": 2,
    "batch_size": 32,
    "num_workers": 2,
    "transform_type": "contrastive-trivialaugment",
    "Noise": {"noise_types": ["gaussian", "fourier"], "ssnrs": [0.5, 0.8], "probs": 0.5},
    "Blur": {"sigmas": [1, 2], "probs": 0.3},
    "randomerase": "random",
    "cutmix": True,
    "mixup": {"alpha": 0.2},
    "save_every_minutes": 0.02,
    # It ends with the last epoch, and cannot be stepped beyond.
    "scheduler": "OneCycleLR",
    "scheduler_args": {"max_lr": 0.003, "total_steps": 2},
    "ema": 0.9,
    "swa": {"start": 1},
    "trackers": ["wandb"],
}


def performance(run: Path) -> list[dict[str, str]]:
    with (run / "performance.csv").open() as file:
        return list(csv.DictReader(file))


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def status(run: Path) -> dict:
    try:
        return json.loads((run / "status.json").read_text())
    except FileNotFoundError:
        return {}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The run that the disturbed ones must equal."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("undisturbed")
    write_job(folder / "job.json", **RESTLESS, model_dir=str(folder / "run"))
    subprocess.run(
        [sys.executable, "-m", "accel_trainer.cli", "train", "job.json"],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )
    return folder / "run"


def is_mid_epoch(run: Path, epoch: int) -> bool:
    said = status(run)
    return said.get("epoch") == epoch and 0 < said.get("step", 0) < said["steps_per_epoch"]


def test_kill_9_of_everything_mid_epoch_leaves_no_trace_in_the_result(cli, background, undisturbed, tmp_path):
    run = tmp_path / "run"
    write_job(Path("training_queue/job.json"), **RESTLESS, model_dir=str(run))
    runner = background("run-queue")
    wait_until(lambda: is_mid_epoch(run, epoch=2))
    kill_tree(runner.pid)
    wait_until(lambda: not trainers_in(Path.cwd()))
    assert not list(Path("training_queue").glob("*.json"))

    result = cli("run-queue")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "its runner died" in result.stdout
    assert "going on in epoch" in (run / "log.txt").read_text()
    assert [p.name for p in Path("training_queue/done").iterdir()] == ["job.json"]
    assert same_weights(run / "params/002.safetensors", undisturbed / "params/002.safetensors")
    for name in ("best", "ema", "swa"):
        assert same_weights(run / f"params/{name}.safetensors", undisturbed / f"params/{name}.safetensors")
    of_epochs = {"1": ("train", "val", "val_ema"), "2": ("train", "val", "val_ema", "val_swa")}
    assert [(row["epoch"], row["split"]) for row in performance(run)] == [
        (epoch, split) for epoch, splits in of_epochs.items() for split in splits
    ]
    for name in ("loss", "acc1", "acc5", "lr"):
        assert [row[name] for row in performance(run)] == [row[name] for row in performance(undisturbed)]
    offline_runs = [p.name.rpartition("-")[2] for p in (run / "wandb").glob("offline-run-*")]
    assert len(offline_runs) == 2
    assert len(set(offline_runs)) == 1


# ConvNeXt is smooth and has neither BatchNorm nor dropout: rounding errors stay as small as they are.
SMOOTH = {
    "architecture": "timm:convnext_atto",
    "architecture_args": None,
    "class_subset": [0, 1, 2],
    "transform_type": "none",
    "Noise": {"noise_types": ["gaussian", "fourier"], "ssnrs": [0.8], "probs": 0.5},
    "cutmix": True,
    "mixup": True,
    "batch_size": 32,
    "gradient_accumulation": 2,
    "clip_grad_norm": 1.0,
    "optimizer": "SGD",
    "optimizer_args": {"lr": 0.01, "momentum": 0.9},
}


def test_two_processes_train_what_one_does(cli, tmp_path):
    configs = REPOSITORY / "accelerate_configs"
    for count in (1, 2):
        run = tmp_path / f"run{count}"
        write_job(Path(f"q{count}/job.json"), **SMOOTH, model_dir=str(run))
        result = cli(
            "run-queue", "--queue", f"q{count}", "--config", configs / "multi_cpu.yaml", "--num-processes", str(count)
        )
        assert result.returncode == 0, result.stdout
    assert "2 processes on cpu" in (tmp_path / "run2/log.txt").read_text()
    one, two = performance(tmp_path / "run1"), performance(tmp_path / "run2")
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-5)
        assert float(a["acc1"]) == pytest.approx(float(b["acc1"]), abs=1e-4)
    assert float(one[-1]["acc1"]) > 95, "it learns: there is something to agree on"


def test_the_best_weights_give_the_logged_accuracy_in_plain_torchvision(undisturbed):
    logged = max(float(row["acc1"]) for row in performance(undisturbed) if row["split"] == "val")

    model = models.shufflenet_v2_x0_5(num_classes=10).eval()
    model.load_state_dict(load_file(undisturbed / "params/best.safetensors"))
    images, labels = validation_digits()
    transform = v2.Compose(
        [
            v2.Resize(36, antialias=True),
            v2.CenterCrop(32),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.no_grad():
        hits = (model(transform(images)).argmax(1) == labels).sum().item()

    assert 100 * hits / len(labels) == pytest.approx(logged, abs=1e-6)


def test_the_picture_in_the_run_folder_is_the_preview(undisturbed):
    job = read_job(undisturbed.parent / "job.json")
    assert (undisturbed / "sample_train_inputs.png").read_bytes() == preview(job, epoch=1)


def validation_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The held-out digits from scikit-learn itself: uint8 (450, 3, 8, 8), int64 (450,)."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    _, held_out = train_test_split(np.arange(1797), test_size=0.25, stratify=digits.target, random_state=0)
    pixels = torch.from_numpy(np.rint(digits.images[held_out] * (255 / 16)).astype(np.uint8))
    return pixels[:, None].repeat(1, 3, 1, 1), torch.from_numpy(digits.target[held_out])
